//! Kubernetes quantities, as metric targets and metric values use them.
//!
//! The HPA computes in thousandths as `int64` (`MilliValue`), and so does this module. A value beyond
//! `int64` would overflow there to a negative sum, which scales to the maximum.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A non-negative amount in thousandths, at most `i64::MAX` of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Milli(u64);

/// Maximum number of thousandths that the arithmetic of the HPA can hold.
const MAX_THOUSANDTHS: u64 = i64::MAX.unsigned_abs();

impl Milli {
    /// One unit.
    pub const ONE: Milli = Milli(1000);

    /// Converts whole units, saturating.
    #[must_use]
    pub fn from_units(units: u64) -> Self {
        Self(units.saturating_mul(1000).min(MAX_THOUSANDTHS))
    }

    /// Minimum amount above zero.
    pub const MIN_POSITIVE: Milli = Milli(1);

    #[must_use]
    pub fn thousandths(self) -> u64 {
        self.0
    }

    /// Saturating product.
    #[must_use]
    pub fn times(self, n: u32) -> Self {
        Self(self.0.saturating_mul(u64::from(n)).min(MAX_THOUSANDTHS))
    }

    /// This amount times `times / parts`, rounded down, saturating; `parts` must not be zero.
    #[must_use]
    pub fn scaled(self, times: u64, parts: u64) -> Self {
        let scaled = u128::from(self.0).saturating_mul(u128::from(times));
        let scaled = scaled.checked_div(u128::from(parts)).unwrap_or(u128::MAX);
        Self(
            u64::try_from(scaled)
                .unwrap_or(MAX_THOUSANDTHS)
                .min(MAX_THOUSANDTHS),
        )
    }

    /// Saturating sum.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0).min(MAX_THOUSANDTHS))
    }

    /// Division rounded up, as the HPA rounds; `None` if `per` is zero.
    #[must_use]
    pub fn ceil_div(self, per: Self) -> Option<u64> {
        (per.0 > 0).then(|| self.0.div_ceil(per.0))
    }

    /// Parses a Kubernetes quantity: a decimal number with an SI suffix (`n u m k M G T P E`), a
    /// binary one (`Ki` to `Ei`) or a decimal exponent. Fractions of a thousandth round up, as in
    /// Kubernetes. `None` if the text is not a quantity or is negative.
    ///
    /// Source: `k8s.io/apimachinery/pkg/api/resource/quantity.go`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix('+').unwrap_or(text);
        let digits_end = text
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(text.len());
        let (number, suffix) = text.split_at(digits_end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return None;
        }
        let mantissa: u128 = format!("{whole}{fraction}").parse().ok()?;
        let scale = i32::try_from(fraction.len()).ok()?;
        let (multiplier, exponent): (u128, i32) = match suffix {
            "n" => (1, -9),
            "u" => (1, -6),
            "m" => (1, -3),
            "" => (1, 0),
            "k" => (1, 3),
            "M" => (1, 6),
            "G" => (1, 9),
            "T" => (1, 12),
            "P" => (1, 15),
            "E" => (1, 18),
            "Ki" => (1 << 10, 0),
            "Mi" => (1 << 20, 0),
            "Gi" => (1 << 30, 0),
            "Ti" => (1 << 40, 0),
            "Pi" => (1 << 50, 0),
            "Ei" => (1 << 60, 0),
            _ => (1, suffix.strip_prefix(['e', 'E'])?.parse().ok()?),
        };
        let power = exponent.checked_add(3)?.checked_sub(scale)?;
        let value = mantissa.checked_mul(multiplier)?;
        let factor = 10u128.checked_pow(power.unsigned_abs());
        let thousandths = match (power >= 0, factor) {
            (_, None) if value == 0 => 0,
            (true, None) => u128::from(MAX_THOUSANDTHS),
            (false, None) => 1,
            (true, Some(factor)) => value.saturating_mul(factor),
            (false, Some(factor)) => value.div_ceil(factor),
        };
        Some(Self(
            u64::try_from(thousandths)
                .unwrap_or(MAX_THOUSANDTHS)
                .min(MAX_THOUSANDTHS),
        ))
    }
}

impl fmt::Display for Milli {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0 / 1000, self.0 % 1000) {
            (units, 0) => write!(f, "{units}"),
            _ => write!(f, "{}m", self.0),
        }
    }
}

impl Serialize for Milli {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Milli {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text)
            .ok_or_else(|| D::Error::custom(format_args!("{text:?} is not a Kubernetes quantity")))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parses_what_kubernetes_parses() {
        for (text, thousandths) in [
            ("0", Some(0)),
            ("100", Some(100_000)),
            ("+7", Some(7_000)),
            ("0.5", Some(500)),
            (".5", Some(500)),
            ("5.", Some(5_000)),
            ("1k", Some(1_000_000)),
            ("1500m", Some(1_500)),
            ("1Ki", Some(1_024_000)),
            ("1.5Mi", Some(1_572_864_000)),
            ("2e3", Some(2_000_000)),
            ("2E3", Some(2_000_000)),
            ("5e-1", Some(500)),
            ("1n", Some(1)),
            ("100u", Some(1)),
            ("9E", Some(MAX_THOUSANDTHS)),
            ("1e400", Some(MAX_THOUSANDTHS)),
            ("1e-400", Some(1)),
            ("0e400", Some(0)),
            ("-1", None),
            ("", None),
            (".", None),
            ("1.2.3", None),
            ("1x", None),
            ("k", None),
            ("1e", None),
        ] {
            assert_eq!(
                Milli::parse(text).map(Milli::thousandths),
                thousandths,
                "{text}"
            );
        }
    }

    proptest! {
        #[test]
        fn display_round_trips(thousandths in 0..=MAX_THOUSANDTHS) {
            prop_assert_eq!(Milli::parse(&Milli(thousandths).to_string()), Some(Milli(thousandths)));
        }

        #[test]
        fn parse_never_panics(text in "[0-9.eEkmKiMx+-]{0,12}") {
            let _ = Milli::parse(&text);
        }
    }

    #[test]
    fn saturates_at_the_largest_value_an_hpa_accepts() {
        assert_eq!(Milli::from_units(u64::MAX).thousandths(), MAX_THOUSANDTHS);
        assert_eq!(
            Milli::from_units(u64::MAX).times(7).thousandths(),
            MAX_THOUSANDTHS
        );
        assert_eq!(
            Milli::from_units(u64::MAX)
                .plus(Milli::from_units(1))
                .thousandths(),
            MAX_THOUSANDTHS
        );
    }
}
