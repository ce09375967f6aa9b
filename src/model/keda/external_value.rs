//! Values and targets for KEDA, such that the HPA that it keeps computes what lagwise's own would.
//!
//! KEDA takes floating-point numbers, multiplies them by 1000 and drops the rest (`resource.NewMilliQuantity` of
//! `int64(value * 1000)`). A target that lost a thousandth in this way would give one replica more than the ceiling.

use std::num::NonZeroU64;

use crate::model::units::quantity::Milli;

/// Maximum value that is used, in thousandths. Up to it, KEDA's arithmetic has more than the precision that it needs.
const MAX_VALUE: u64 = 1 << 50;

/// The number from which KEDA computes exactly these thousandths.
#[must_use]
pub fn as_float(amount: Milli) -> f64 {
    // Such whole numbers are exact as floating-point numbers.
    let thousandths: f64 = amount
        .thousandths()
        .min(MAX_VALUE)
        .to_string()
        .parse()
        .unwrap_or(0.0);
    let mut float = thousandths / 1000.0;
    while float * 1000.0 < thousandths {
        float = float.next_up();
    }
    float
}

/// A target in whole numbers, for versions of KEDA before 2.16, which take no others.
#[must_use]
pub fn whole_target(target: Milli) -> i64 {
    to_signed(units(target).get())
}

/// A value in whole numbers that divided by [`whole_target`] and rounded up gives the same replicas as the exact ones.
#[must_use]
pub fn whole_value(value: Milli, target: Milli) -> i64 {
    let scaled = u128::from(value.thousandths()).saturating_mul(u128::from(units(target).get()));
    let scaled = scaled.div_ceil(u128::from(target.thousandths().max(1)));
    u64::try_from(scaled).map_or(i64::MAX, to_signed)
}

/// Whole units, rounded up, at least one.
fn units(amount: Milli) -> NonZeroU64 {
    NonZeroU64::new(amount.thousandths().div_ceil(1000)).unwrap_or(NonZeroU64::MIN)
}

fn to_signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// KEDA's conversion of a number: `int64(value * 1000)`.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "as KEDA does it"
    )]
    fn in_keda(number: f64) -> u64 {
        (number * 1000.0) as i64 as u64
    }

    fn milli(thousandths: u64) -> Milli {
        Milli::MIN_POSITIVE.scaled(thousandths, 1)
    }

    #[test]
    fn keda_computes_the_same_thousandths() {
        for thousandths in (0..200_000).chain([8_039, 1_001, 16_097, MAX_VALUE - 1, MAX_VALUE]) {
            let float = as_float(milli(thousandths));
            assert_eq!(in_keda(float), thousandths, "{float}");
        }
        assert!(in_keda(as_float(milli(u64::MAX))) <= MAX_VALUE);
    }

    proptest! {
        #[test]
        fn whole_numbers_give_the_same_replicas(lag in 0u64..5_000_000, target in 1u64..1_000_000) {
            let (value, target) = (milli(lag), milli(target));
            let exact = value.ceil_div(target).unwrap();
            let whole = |number: i64| u64::try_from(number).unwrap();
            let whole = whole(whole_value(value, target)).div_ceil(whole(whole_target(target)));
            prop_assert_eq!(whole, exact);
        }

        #[test]
        fn the_ceiling_is_never_passed(ceiling in 1u32..2000, target in 1u64..10_000_000) {
            let target = milli(target);
            let most = target.times(ceiling);
            let replicas = in_keda(as_float(most)).div_ceil(in_keda(as_float(target)));
            prop_assert_eq!(replicas, u64::from(ceiling));
        }
    }
}
