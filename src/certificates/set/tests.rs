use std::time::Duration;

use super::*;

const HOST: &str = "lagwise.shop.svc";
const DAY: Duration = Duration::from_secs(24 * 3600);

fn names() -> Vec<String> {
    [HOST, "localhost"].map(str::to_owned).into()
}

fn begun(now: SystemTime) -> SecretData {
    let nothing = CertificateSet::read(&SecretData::new(), HOST, now).0;
    nothing.apply(RotationStep::Begin, &names(), now).unwrap()
}

fn read(data: &SecretData, now: SystemTime) -> CertificateSet {
    let (set, reason) = CertificateSet::read(data, HOST, now);
    assert_eq!(reason, None);
    set
}

fn count(pem: &str) -> usize {
    pem.matches("BEGIN CERTIFICATE").count()
}

#[test]
fn created_set_is_usable_and_renewable() {
    let now = SystemTime::now();
    let data = begun(now);
    let set = read(&data, now);
    let usable = set.usable(now);
    assert!(
        usable.signer.is_some() && usable.leaf.unwrap().is_signed_by_newest && !usable.has_expired
    );
    assert_eq!((set.data(), count(&set.bundle())), (data.clone(), 1));
    let later = now + DAY * 70;
    let renewed = set.apply(RotationStep::NewLeaf, &names(), later).unwrap();
    assert_eq!(renewed[BUNDLE], data[BUNDLE]);
    assert_eq!(renewed[SIGNER_KEY], data[SIGNER_KEY]);
    assert_ne!(renewed[CERTIFICATE], data[CERTIFICATE]);
    assert!(
        read(&renewed, later).server_certificate().unwrap().2.ends
            > set.server_certificate().unwrap().2.ends
    );
}

#[test]
fn new_authority_joins_before_it_signs() {
    let now = SystemTime::now();
    let first = read(&begun(now), now);
    let joined = first
        .apply(RotationStep::NewAuthority, &names(), now)
        .unwrap();
    let joined = read(&joined, now);
    assert!(joined.bundle().ends_with(&first.bundle()) && count(&joined.bundle()) == 2);
    assert_eq!(joined.data()[CERTIFICATE], first.data()[CERTIFICATE]);
    assert_ne!(joined.data()[SIGNER_KEY], first.data()[SIGNER_KEY]);
    assert!(!joined.usable(now).leaf.unwrap().is_signed_by_newest);
    let signed = read(
        &joined.apply(RotationStep::NewLeaf, &names(), now).unwrap(),
        now,
    );
    assert!(signed.usable(now).leaf.unwrap().is_signed_by_newest);
    assert_eq!(signed.bundle(), joined.bundle());
    // Clients with only the old bundle reject the new certificate; clients with the new one accept both.
    let mut trusting_one = signed.data();
    trusting_one.insert(BUNDLE.to_owned(), first.bundle());
    let reason = CertificateSet::read(&trusting_one, HOST, now).1;
    assert_eq!(reason, Some(CertificateProblem::Untrusted));
}

#[test]
fn drops_expired_authorities() {
    let long_ago = SystemTime::now();
    let first = read(&begun(long_ago), long_ago);
    let at_two_thirds = long_ago + DAY * 2500;
    let joined = first
        .apply(RotationStep::NewAuthority, &names(), at_two_thirds)
        .unwrap();
    let (joined, _) = CertificateSet::read(&joined, HOST, at_two_thirds);
    let signed = read(
        &joined
            .apply(RotationStep::NewLeaf, &names(), at_two_thirds)
            .unwrap(),
        at_two_thirds,
    );
    assert!(!signed.usable(at_two_thirds).has_expired);
    let after = long_ago + DAY * 3651;
    // The certificate would expire before that, so renew it now.
    let signed = signed
        .apply(RotationStep::NewLeaf, &names(), after)
        .unwrap();
    let signed = read(&signed, after);
    assert_eq!(count(&signed.bundle()), 1);
    assert!(!signed.usable(after).has_expired);
}

#[test]
fn bundle_is_bounded_and_keeps_the_signer() {
    let now = SystemTime::now();
    let first = read(&begun(now), now);
    let vouching = first.bundle();
    let mut set = first;
    for _ in 0..10 {
        set = read(
            &set.apply(RotationStep::NewAuthority, &names(), now)
                .unwrap(),
            now,
        );
    }
    assert!(set.bundle().ends_with(&vouching));
    assert!(
        count(&set.bundle()) <= MAX_AUTHORITIES + 1,
        "{}",
        count(&set.bundle())
    );
}

#[test]
fn unusable_set_says_why() {
    let now = SystemTime::now();
    let (good, other) = (begun(now), begun(now));
    let with = |name: &str, text: &str| {
        let mut data = good.clone();
        data.insert(name.to_owned(), text.to_owned());
        data
    };
    let without = |name: &str| {
        let mut data = good.clone();
        data.remove(name);
        data
    };
    let half = &good[CERTIFICATE][..200];
    for (data, host, when, expected) in [
        (
            SecretData::new(),
            HOST,
            now,
            CertificateProblem::Missing(CERTIFICATE),
        ),
        (without(KEY), HOST, now, CertificateProblem::Missing(KEY)),
        (
            with(KEY, " \n"),
            HOST,
            now,
            CertificateProblem::Missing(KEY),
        ),
        (
            with(CERTIFICATE, half),
            HOST,
            now,
            CertificateProblem::Unreadable(CERTIFICATE),
        ),
        (
            with(CERTIFICATE, "\u{fffd}"),
            HOST,
            now,
            CertificateProblem::Unreadable(CERTIFICATE),
        ),
        (
            with(KEY, "none"),
            HOST,
            now,
            CertificateProblem::Unreadable(KEY),
        ),
        (
            with(KEY, &other[KEY]),
            HOST,
            now,
            CertificateProblem::WrongKey,
        ),
        (
            with(BUNDLE, &other[BUNDLE]),
            HOST,
            now,
            CertificateProblem::Untrusted,
        ),
        (without(BUNDLE), HOST, now, CertificateProblem::Untrusted),
        (
            with(BUNDLE, "garbage"),
            HOST,
            now,
            CertificateProblem::Untrusted,
        ),
        (
            good.clone(),
            "other.shop.svc",
            now,
            CertificateProblem::WrongName,
        ),
        (good.clone(), "", now, CertificateProblem::WrongName),
        (
            good.clone(),
            HOST,
            now + DAY * 91,
            CertificateProblem::WrongTime,
        ),
        (good.clone(), HOST, now - DAY, CertificateProblem::WrongTime),
    ] {
        let (set, reason) = CertificateSet::read(&data, host, when);
        assert_eq!(reason, Some(expected));
        assert!(set.server_certificate().is_none() && set.usable(when).leaf.is_none());
    }
    // A wrong key of the signer does not matter until the next signature.
    for data in [
        with(SIGNER_KEY, &other[SIGNER_KEY]),
        with(SIGNER_KEY, ""),
        without(SIGNER_KEY),
    ] {
        assert_eq!(read(&data, now).usable(now).signer, None);
    }
    // Text around the authorities is ignored.
    let text = format!("# ours\n\ngarbage\n{}\n\n{}", good[BUNDLE], other[BUNDLE]);
    assert_eq!(count(&read(&with(BUNDLE, &text), now).bundle()), 2);
}

#[test]
fn debug_hides_keys() {
    let now = SystemTime::now();
    let set = read(&begun(now), now);
    let shown = format!("{set:?}");
    assert!(
        shown.contains("BEGIN CERTIFICATE") && !shown.contains("PRIVATE"),
        "{shown}"
    );
}
