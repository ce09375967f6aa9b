//! The cap mode of an HPA.

/// How lagwise keeps an HPA at or below its replica ceiling.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CapMode {
    /// Limits the value served, and writes nothing.
    #[default]
    Advise,
    /// Also keeps `maxReplicas` at the ceiling.
    Enforce,
}

/// A ceiling without effect: the largest possible `maxReplicas`.
pub const NO_CEILING: u32 = 2_147_483_647;
