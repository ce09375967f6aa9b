//! Writes the bodies of requests that name tens of thousands of partitions, directly from the queries. The values that
//! `kafka-protocol` encodes take an allocation for each topic and forty bytes for each partition.

use std::num::TryFromIntError;

use kafka_protocol::protocol::buf::ByteBufMut;

/// Maximum size of a length or a count.
pub(super) const MAX_COUNT_BYTES: usize = 5;

/// Writes a body from start to end.
pub(super) struct RequestWriter<'a, B> {
    buffer: &'a mut B,
    /// Whether lengths are varints and structures end in tagged fields (KIP-482).
    flexible: bool,
}

impl<'a, B: ByteBufMut> RequestWriter<'a, B> {
    pub(super) fn new(buffer: &'a mut B, flexible: bool) -> Self {
        Self { buffer, flexible }
    }

    pub(super) fn i8(&mut self, value: i8) {
        self.buffer.put_i8(value);
    }

    pub(super) fn i32(&mut self, value: i32) {
        self.buffer.put_i32(value);
    }

    pub(super) fn i64(&mut self, value: i64) {
        self.buffer.put_i64(value);
    }

    /// Writes a string; `None` for null.
    pub(super) fn string(&mut self, text: Option<&str>) -> Result<(), TryFromIntError> {
        let length = text.map(str::len);
        match self.flexible {
            true => self.compact_length(length)?,
            false => {
                let length = length.map_or(Ok(-1), i16::try_from)?;
                self.buffer.put_i16(length);
            }
        }
        self.buffer.put_slice(text.unwrap_or_default().as_bytes());
        Ok(())
    }

    /// Writes how many items of an array follow; `None` for null.
    pub(super) fn count(&mut self, items: Option<usize>) -> Result<(), TryFromIntError> {
        if self.flexible {
            return self.compact_length(items);
        }
        self.i32(items.map_or(Ok(-1), i32::try_from)?);
        Ok(())
    }

    /// Ends a structure: it has no tagged fields.
    pub(super) fn end(&mut self) {
        if self.flexible {
            self.buffer.put_u8(0);
        }
    }

    /// Writes a length plus one as an unsigned varint, so that 0 is null.
    fn compact_length(&mut self, length: Option<usize>) -> Result<(), TryFromIntError> {
        let mut rest = u32::try_from(length.map_or(0, |length| length.saturating_add(1)))?;
        while rest >= 0x80 {
            // The lowest seven bits, and that more follow.
            self.buffer.put_u8(u8::try_from(rest & 0x7f)? | 0x80);
            rest >>= 7;
        }
        self.buffer.put_u8(u8::try_from(rest)?);
        Ok(())
    }
}
