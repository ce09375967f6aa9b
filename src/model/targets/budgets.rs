//! Budgets: how much HPAs may make lagwise read and keep in memory. Without them, a user who may write HPAs in one
//! namespace could use up the memory and time that other namespaces need.

use std::collections::BTreeMap;
use std::fmt;

/// Resource that a budget limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    /// Consumer groups, counted once for each metric that selects them.
    Groups,
    /// Named topics, counted once for each group of a metric. A group without named topics counts as one topic.
    Topics,
    /// Bytes of compiled regular expressions.
    PatternBytes,
    /// Partitions, counted once for each group that reads them.
    Partitions,
}

impl Resource {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Groups,
        Self::Topics,
        Self::PatternBytes,
        Self::Partitions,
    ];

    /// Its key in the configuration, and its name in metric labels.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Groups => "groups",
            Self::Topics => "topics",
            Self::PatternBytes => "pattern_bytes",
            Self::Partitions => "partitions",
        }
    }
}

/// Whose HPAs a budget limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BudgetScope {
    Hpa,
    Namespace,
    Total,
}

impl BudgetScope {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Hpa, Self::Namespace, Self::Total];

    /// Its key in the configuration, and its name in metric labels.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Hpa => "hpa",
            Self::Namespace => "namespace",
            Self::Total => "total",
        }
    }
}

/// An amount of each resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amounts {
    pub groups: u64,
    pub topics: u64,
    pub pattern_bytes: u64,
    pub partitions: u64,
}

impl Amounts {
    /// The amount of one resource.
    #[must_use]
    pub fn get(&self, resource: Resource) -> u64 {
        match resource {
            Resource::Groups => self.groups,
            Resource::Topics => self.topics,
            Resource::PatternBytes => self.pattern_bytes,
            Resource::Partitions => self.partitions,
        }
    }

    /// Sets the amount of one resource.
    pub fn set(&mut self, resource: Resource, amount: u64) {
        let place = match resource {
            Resource::Groups => &mut self.groups,
            Resource::Topics => &mut self.topics,
            Resource::PatternBytes => &mut self.pattern_bytes,
            Resource::Partitions => &mut self.partitions,
        };
        *place = amount;
    }

    /// Applies `join` to the two amounts of each resource.
    fn zip_with(self, other: Self, join: fn(u64, u64) -> u64) -> Self {
        Self {
            groups: join(self.groups, other.groups),
            topics: join(self.topics, other.topics),
            pattern_bytes: join(self.pattern_bytes, other.pattern_bytes),
            partitions: join(self.partitions, other.partitions),
        }
    }

    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        self.zip_with(other, u64::saturating_add)
    }

    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        self.zip_with(other, u64::saturating_sub)
    }

    /// Whether no amount is above that of `other`.
    #[must_use]
    pub fn is_within(self, other: Self) -> bool {
        self.minus(other) == Self::default()
    }

    /// The smaller amount of each resource.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        self.zip_with(other, u64::min)
    }
}

/// The budgets of all scopes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budgets {
    /// For each HPA.
    pub hpa: Amounts,
    /// For all HPAs of a namespace together.
    pub namespace: Amounts,
    /// For all HPAs together.
    pub total: Amounts,
    /// Maximum number of partitions with separate metric series, counted once for each group that reads them.
    pub partition_series: u64,
}

impl Budgets {
    /// Budgets that fit the memory limit of the chart, 256 MiB: a partition of a group needs at most about 100 bytes,
    /// and a group of a metric 8 kB; the regular expressions come on top.
    pub const DEFAULT: Self = Self {
        hpa: Amounts {
            groups: 128,
            topics: 512,
            pattern_bytes: 256 * 1024,
            partitions: 50_000,
        },
        namespace: Amounts {
            groups: 4_000,
            topics: 8_000,
            pattern_bytes: 4 * 1024 * 1024,
            partitions: 200_000,
        },
        total: Amounts {
            groups: 10_000,
            topics: 20_000,
            pattern_bytes: 16 * 1024 * 1024,
            partitions: 500_000,
        },
        partition_series: 50_000,
    };

    /// The budget of one scope.
    #[must_use]
    pub fn of_scope(&self, scope: BudgetScope) -> &Amounts {
        match scope {
            BudgetScope::Hpa => &self.hpa,
            BudgetScope::Namespace => &self.namespace,
            BudgetScope::Total => &self.total,
        }
    }

    /// Checks what each scope would use against its budget.
    ///
    /// # Errors
    /// The first budget that would be exceeded.
    pub fn check(&self, used: &[(BudgetScope, Amounts)]) -> Result<(), BudgetExceeded> {
        for (scope, used) in used {
            let budget = self.of_scope(*scope);
            for resource in Resource::ALL {
                let limit = budget.get(resource);
                if used.get(resource) > limit {
                    return Err(BudgetExceeded {
                        scope: *scope,
                        resource,
                        limit,
                    });
                }
            }
        }
        Ok(())
    }
}

impl Default for Budgets {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// A budget that is exceeded. `Display` leaves out how much is used, so that the text stays the same while the cause
/// lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BudgetExceeded {
    pub scope: BudgetScope,
    pub resource: Resource,
    pub limit: u64,
}

/// Counts the HPAs or groups that exceed each budget.
#[must_use]
pub fn count_exceeded(
    reasons: impl Iterator<Item = BudgetExceeded>,
) -> BTreeMap<BudgetExceeded, usize> {
    let mut exceeded = BTreeMap::new();
    for reason in reasons {
        let count: &mut usize = exceeded.entry(reason).or_default();
        *count = count.saturating_add(1);
    }
    exceeded
}

impl fmt::Display for BudgetExceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            scope,
            resource,
            limit,
        } = self;
        let whose = match scope {
            BudgetScope::Hpa => "the HPA asks",
            BudgetScope::Namespace => "with it, the HPAs of its namespace would ask",
            BudgetScope::Total => "with it, all HPAs would ask",
        };
        let what = match resource {
            Resource::Groups => "consumer groups",
            Resource::Topics => "topics",
            Resource::PatternBytes => "bytes of compiled regular expressions",
            Resource::Partitions => "partitions of consumer groups",
        };
        let no_room = match scope {
            BudgetScope::Hpa | BudgetScope::Namespace => "",
            BudgetScope::Total => ", and no namespace that uses more can make room for it",
        };
        let (scope, resource) = (scope.name(), resource.name());
        write!(
            f,
            "{whose} for more than {limit} {what}{no_room} (budgets.{scope}.{resource} in the configuration of lagwise)"
        )
    }
}
