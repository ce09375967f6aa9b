use proptest::prelude::*;

use super::*;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn validity(begins: u64, ends: u64) -> Validity {
    Validity {
        begins: at(begins),
        ends: at(ends),
    }
}

#[test]
fn validity_is_due_after_two_thirds() {
    let validity = validity(1000, 1300);
    for (now, is_due, is_expired) in [
        (999, true, false),
        (1000, false, false),
        (1199, false, false),
        (1200, true, false),
        (1299, true, false),
        (1300, true, true),
        (9999, true, true),
    ] {
        let found = (validity.is_due(at(now)), validity.is_expired(at(now)));
        assert_eq!(found, (is_due, is_expired), "{now}");
    }
    assert_eq!(validity.ends_at(), 1300);
}

#[test]
fn next_step_depends_on_the_usable_certificates() {
    let now = at(1_000_000);
    let fresh = Some(validity(999_000, 1_100_000));
    let due = Some(validity(0, 1_100_000));
    let expired = Some(validity(0, 1_000_000));
    let young = validity(999_999, 1_000_300);
    let old = validity(0, 1_000_300);
    let leaf = |validity, is_signed_by_newest| {
        Some(Leaf {
            validity,
            is_signed_by_newest,
        })
    };
    let (pending, unseen) = (Publication::Pending, Publication::Unseen);
    let since = |seconds| Publication::Since(Duration::from_secs(seconds));
    for (signer, leaf, has_expired, publication, expected) in [
        // No usable certificate: issue one at once.
        (None, None, false, unseen, Some(RotationStep::Begin)),
        (expired, None, false, since(99), Some(RotationStep::Begin)),
        (fresh, None, false, pending, Some(RotationStep::NewLeaf)),
        (due, None, true, pending, Some(RotationStep::NewLeaf)),
        // The authority is missing or due: add a new one, and keep the served certificate.
        (
            None,
            leaf(young, false),
            false,
            since(99),
            Some(RotationStep::NewAuthority),
        ),
        (
            expired,
            leaf(young, true),
            false,
            since(99),
            Some(RotationStep::NewAuthority),
        ),
        (
            due,
            leaf(young, true),
            false,
            pending,
            Some(RotationStep::NewAuthority),
        ),
        (
            due,
            leaf(old, true),
            true,
            since(99),
            Some(RotationStep::NewAuthority),
        ),
        // Signed by the previous authority: wait until clients have the new bundle.
        (fresh, leaf(old, false), false, pending, None),
        (
            fresh,
            leaf(old, false),
            true,
            pending,
            Some(RotationStep::DropExpired),
        ),
        (fresh, leaf(young, false), false, since(0), None),
        (
            fresh,
            leaf(young, false),
            false,
            since(15),
            Some(RotationStep::NewLeaf),
        ),
        (fresh, leaf(young, false), false, unseen, None),
        (
            Some(validity(900_000, 1_500_000)),
            leaf(young, false),
            false,
            unseen,
            Some(RotationStep::NewLeaf),
        ),
        // Signed by the newest authority: renew in time.
        (fresh, leaf(young, true), false, pending, None),
        (
            fresh,
            leaf(old, true),
            false,
            pending,
            Some(RotationStep::NewLeaf),
        ),
        (
            fresh,
            leaf(young, true),
            true,
            pending,
            Some(RotationStep::DropExpired),
        ),
        // A clock that was set back.
        (
            Some(validity(2_000_000, 9_000_000)),
            leaf(young, true),
            false,
            since(99),
            Some(RotationStep::NewAuthority),
        ),
    ] {
        let usable = UsableCertificates {
            signer,
            leaf,
            has_expired,
        };
        assert_eq!(
            next_step(&usable, publication, now),
            expected,
            "{usable:?} {publication:?}"
        );
    }
}

/// A model of the shared certificates: the number and validity of each authority (newest first), and the number of
/// the authority that signed the served certificate, with its validity.
#[derive(Clone, Debug)]
struct FakeCertificates {
    bundle: Vec<(u32, Validity)>,
    has_key: bool,
    leaf: (u32, Validity),
}

impl FakeCertificates {
    fn ids(&self) -> Vec<u32> {
        self.bundle.iter().map(|(id, _)| *id).collect()
    }

    fn usable(&self, now: SystemTime) -> UsableCertificates {
        let is_signer =
            |(id, validity): &&(u32, Validity)| *id == self.leaf.0 && !validity.is_expired(now);
        let is_usable = !self.leaf.1.is_expired(now) && self.bundle.iter().any(|a| is_signer(&a));
        UsableCertificates {
            signer: self
                .bundle
                .first()
                .filter(|_| self.has_key)
                .map(|(_, v)| *v),
            leaf: is_usable.then(|| Leaf {
                validity: self.leaf.1,
                is_signed_by_newest: self.bundle[0].0 == self.leaf.0,
            }),
            has_expired: self.bundle.iter().any(|(_, v)| v.is_expired(now)),
        }
    }

    fn apply(&mut self, step: RotationStep, next_id: u32, now: SystemTime) {
        let valid_for = |days| Validity {
            begins: now,
            ends: now + DAY * days,
        };
        match step {
            RotationStep::Begin | RotationStep::NewAuthority => {
                self.bundle.retain(|(_, v)| !v.is_expired(now));
                self.bundle.insert(0, (next_id, valid_for(3650)));
                self.has_key = true;
            }
            RotationStep::NewLeaf | RotationStep::DropExpired => {}
        }
        match step {
            RotationStep::Begin | RotationStep::NewLeaf => {
                self.leaf = (self.bundle[0].0, valid_for(90))
            }
            RotationStep::DropExpired => self.bundle.retain(|(_, v)| !v.is_expired(now)),
            RotationStep::NewAuthority => {}
        }
    }
}

proptest! {
    /// Over years in which publishing sometimes fails and keys get lost, clients that trust the last published
    /// bundle trust the served certificate, unless no such certificate could be served.
    #[test]
    fn last_published_bundle_always_trusts_the_served_certificate(
        steps in proptest::collection::vec((0u32..20, 0u8..10, 0u8..40), 300..900),
    ) {
        let mut now = at(1_800_000_000);
        let none = FakeCertificates { bundle: Vec::new(), has_key: false, leaf: (0, validity(0, 1)) };
        let mut certificates = none;
        let (mut published, mut since) = (Vec::new(), now);
        let mut no_trusted_leaf = true;
        for (id, (days, publishing, key_loss)) in (1..).zip(steps) {
            now += DAY * days;
            if key_loss == 0 {
                certificates.has_key = false;
            }
            let publication = if published == certificates.ids() {
                Publication::Since(now.duration_since(since).unwrap())
            } else {
                Publication::Pending
            };
            let usable = certificates.usable(now);
            let step = next_step(&usable, publication, now);
            if let Some(step) = step {
                certificates.apply(step, id, now);
            }
            no_trusted_leaf |= usable.leaf.is_none();
            let is_trusted = published.contains(&certificates.leaf.0);
            prop_assert!(is_trusted || no_trusted_leaf, "{step:?}: {certificates:?} {published:?}");
            prop_assert!(!certificates.leaf.1.is_expired(now), "{step:?}: {certificates:?}");
            if publishing > 0 && published != certificates.ids() {
                (published, since, no_trusted_leaf) = (certificates.ids(), now, false);
            }
        }
    }
}
