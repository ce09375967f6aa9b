//! Decodes responses about the configuration and the partitions of one topic.

use crate::kafka::wire::cursor::{Malformed, ResponseCursor};

/// The result for the only topic of a request.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::kafka::wire) struct TopicResult {
    pub(in crate::kafka::wire) code: i16,
    /// The broker's explanation of an error.
    pub(in crate::kafka::wire) message: Option<String>,
}

/// Decodes `CreatePartitions` of one topic.
pub(in crate::kafka::wire) fn create_partitions(
    body: &[u8],
    version: i16,
) -> Result<TopicResult, Malformed> {
    let mut cursor = ResponseCursor::new(body, version >= 2);
    cursor.i32()?;
    if cursor.count(4)? != 1 {
        return Err(Malformed);
    }
    cursor.skip_string()?;
    Ok(TopicResult {
        code: cursor.i16()?,
        message: cursor.nullable_string()?.map(str::to_owned),
    })
}

/// Decodes `DescribeConfigs` of one key of one topic: error code, and the value.
pub(in crate::kafka::wire) fn topic_config(
    body: &[u8],
    version: i16,
) -> Result<(i16, Option<String>), Malformed> {
    let mut cursor = ResponseCursor::new(body, version >= 4);
    cursor.i32()?;
    if cursor.count(6)? != 1 {
        return Err(Malformed);
    }
    let code = cursor.i16()?;
    cursor.skip_string()?;
    cursor.i8()?;
    cursor.skip_string()?;
    if cursor.count(4)? == 0 {
        return Ok((code, None));
    }
    cursor.skip_string()?;
    Ok((code, cursor.nullable_string()?.map(str::to_owned)))
}
