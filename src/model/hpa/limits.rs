//! Limits of what is kept of one HPA. Users who may write HPAs can make them as large as the API server accepts (over a
//! megabyte).

/// Maximum number of annotations `lagwise.dev/...` of an HPA.
pub const MAX_ANNOTATIONS: usize = 128;

/// Maximum number of External metrics of an HPA.
pub const MAX_METRICS: usize = 64;

/// Maximum number of metrics with a rejected selector that are kept of an HPA: as many as have findings.
pub const MAX_REJECTED_METRICS: usize = 8;

/// Maximum bytes of all text that is kept of an HPA: names, selectors and annotations.
pub const MAX_TEXT_BYTES: usize = 16 * 1024;

/// Maximum memory of an HPA that is kept however many there are, in bytes. The usual ones have a quarter of it.
pub const MAX_SMALL_BYTES: usize = 4 * 1024;

/// Maximum memory of all larger HPAs of a namespace, in bytes.
pub const MAX_NAMESPACE_BYTES: usize = 2 * 1024 * 1024;

/// Limit that an HPA exceeds, so that it is not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HpaTooLarge {
    #[error(
        "it has {count} annotations lagwise.dev/... ({first}, ...): at most {MAX_ANNOTATIONS} per HPA"
    )]
    Annotations {
        count: usize,
        /// The first few keys.
        first: String,
    },
    #[error("it has {0} External metrics: at most {MAX_METRICS} per HPA")]
    Metrics(usize),
    #[error(
        "its annotations lagwise.dev/..., selectors and names have {0} bytes: at most {MAX_TEXT_BYTES} per HPA"
    )]
    Text(usize),
    #[error(
        "it takes more than {MAX_SMALL_BYTES} bytes of memory, and with it such HPAs of its namespace would take more \
         than {MAX_NAMESPACE_BYTES}: shorten its annotations and selectors"
    )]
    Namespace,
}
