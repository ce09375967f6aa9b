//! What is done about the replica ceiling: `advise` or `enforce`.

/// What is done about the ceiling.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CapMode {
    /// The value served is clamped, and nothing is written.
    #[default]
    Advise,
    /// `maxReplicas` is held to the ceiling.
    Enforce,
}

impl CapMode {
    /// Reads the value of [`MODE`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text.trim() {
            "advise" => Some(CapMode::Advise),
            "enforce" => Some(CapMode::Enforce),
            _ => None,
        }
    }
}

/// A ceiling that bounds nothing: the most that `maxReplicas` can be.
pub const NO_CEILING: u32 = 2_147_483_647;
