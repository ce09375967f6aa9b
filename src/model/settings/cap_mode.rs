//! What lagwise does about the replica ceiling of an HPA.

/// What lagwise does about the replica ceiling of an HPA.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CapMode {
    /// Clamps the value served, and writes nothing.
    #[default]
    Advise,
    /// Holds `maxReplicas` at the ceiling.
    Enforce,
}

/// A ceiling that bounds nothing: the largest `maxReplicas`.
pub const NO_CEILING: u32 = 2_147_483_647;
