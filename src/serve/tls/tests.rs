use rustls::pki_types::UnixTime;

use super::*;
use crate::certificates::rotation::RotationStep;

fn write(name: &str, content: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    (folder, path)
}

#[test]
fn serves_from_files() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (_c, cert) = write("cert.pem", &made.cert.pem());
    let (_k, key) = write("key.pem", &made.signing_key.serialize_pem());
    let tls = ServerTls::from_files(&cert, &key).unwrap();
    assert_eq!(
        tls.config().get_inner().alpn_protocols,
        [b"h2".to_vec(), b"http/1.1".to_vec()]
    );
    assert!(tls.ca_pem().is_none());
}

#[test]
fn error_names_the_unusable_file() {
    let made = |_| rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (one, other) = (made(1), made(2));
    let (_c, cert) = write("cert.pem", &one.cert.pem());
    let (_k, key) = write("key.pem", &one.signing_key.serialize_pem());
    let (_o, other_key) = write("other.pem", &other.signing_key.serialize_pem());
    let (_e, empty) = write("empty.pem", "");
    let missing = Path::new("/nowhere/tls.crt");
    let text = |cert: &Path, key: &Path| ServerTls::from_files(cert, key).unwrap_err().to_string();
    assert!(text(missing, &key).starts_with("cannot read a certificate from /nowhere/tls.crt: "));
    assert!(text(&cert, missing).starts_with("cannot read a private key from /nowhere/tls.crt: "));
    assert!(text(&empty, &key).contains("cannot read a certificate"));
    assert!(text(&cert, &cert).contains("cannot read a private key"));
    let mismatch = text(&cert, &other_key);
    assert!(mismatch.contains("cannot use certificate"), "{mismatch}");
}

#[test]
fn error_names_the_invalid_host_name() {
    let error = ServerTls::self_signed(&["snow☃man".to_owned()]).unwrap_err();
    assert!(error.to_string().contains("snow☃man"), "{error}");
}

#[derive(Debug)]
struct At(SystemTime);

impl rustls::time_provider::TimeProvider for At {
    fn current_time(&self) -> Option<UnixTime> {
        let since = self.0.duration_since(SystemTime::UNIX_EPOCH);
        Some(UnixTime::since_unix_epoch(since.unwrap()))
    }
}

/// The certificate that is served at present, as seen by a client that trusts the CA of `tls`.
fn leaf(tls: &ServerTls, now: SystemTime) -> CertificateDer<'static> {
    let provider = provider();
    let mut roots = rustls::RootCertStore::empty();
    let ca = tls.ca_pem().unwrap();
    for ca in CertificateDer::pem_slice_iter(ca.as_bytes()) {
        roots.add(ca.unwrap()).unwrap();
    }
    let mut client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.time_provider = Arc::new(At(now));
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(client), name).unwrap();
    let mut server = rustls::ServerConnection::new(tls.config().get_inner()).unwrap();
    for _ in 0..4 {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        server.read_tls(&mut &bytes[..]).unwrap();
        server.process_new_packets().unwrap();
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        client.read_tls(&mut &bytes[..]).unwrap();
        client.process_new_packets().unwrap();
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    client.peer_certificates().unwrap()[0].clone().into_owned()
}

/// A wall clock that follows tokio's paused clock.
fn clock() -> impl Fn() -> SystemTime + Clone + Send {
    let (wall, began) = (SystemTime::now(), tokio::time::Instant::now());
    move || wall + began.elapsed()
}

#[tokio::test(start_paused = true)]
async fn renews_generated_certificate_before_it_expires() {
    let names = ["localhost".to_owned()];
    let tls = ServerTls::self_signed(&names).unwrap();
    let (first, ca) = (leaf(&tls, SystemTime::now()), tls.ca_pem());
    let clock = clock();
    tokio::spawn(tls.clone().keep_fresh(clock.clone()));
    let days = |count: u64| Duration::from_secs(count * 24 * 3600);
    tokio::time::sleep(days(59)).await;
    assert_eq!(leaf(&tls, clock()), first);
    tokio::time::sleep(days(2)).await;
    let second = leaf(&tls, clock());
    assert_ne!(second, first);
    // The CA to trust stays the same.
    assert_eq!(tls.ca_pem(), ca);
    tokio::time::sleep(days(61)).await;
    let third = leaf(&tls, clock());
    assert!(third != second && third != first);
}

#[tokio::test(start_paused = true)]
async fn serves_shared_certificate_once_available() {
    let names = ["localhost".to_owned()];
    let now = SystemTime::now();
    let (sender, shared) = watch::channel(None);
    let tls = ServerTls::self_signed(&names).unwrap().until_shared(shared);
    let own = leaf(&tls, now);
    let mut ca = tls.ca_pem_changes();
    tokio::spawn(tls.clone().keep_fresh(clock()));
    let wait_for_check = async || tokio::time::sleep(Duration::from_secs(1)).await;
    wait_for_check().await;
    assert_eq!(leaf(&tls, now), own);

    let nothing = CertificateSet::read(&Default::default(), "localhost", now).0;
    let mut set = nothing;
    for step in [
        RotationStep::Begin,
        RotationStep::NewAuthority,
        RotationStep::NewLeaf,
    ] {
        let data = set.apply(step, &names, now).unwrap();
        set = CertificateSet::read(&data, "localhost", now).0;
        let given = CertificateSet::read(&data, "localhost", now).0;
        sender.send_replace(Some(Arc::new(given)));
        wait_for_check().await;
        let bundle = ca.borrow_and_update().clone().unwrap();
        assert_eq!(bundle, set.bundle(), "{step:?}");
        assert_eq!(tls.ca_pem(), Some(bundle));
        // A client that trusts all of them takes it.
        assert_eq!(
            leaf(&tls, now),
            set.server_certificate().unwrap().0[0],
            "{step:?}"
        );
    }
    // An unusable set is not served, and the shared certificate is not renewed by this process.
    let unusable = CertificateSet::read(&Default::default(), "localhost", now).0;
    sender.send_replace(Some(Arc::new(unusable)));
    tokio::time::sleep(Duration::from_secs(70 * 24 * 3600)).await;
    assert_eq!(leaf(&tls, now), set.server_certificate().unwrap().0[0]);
    assert!(!ca.has_changed().unwrap());
}

/// Replaces the contents of a folder as the kubelet does: by a link to another folder.
fn mount(folder: &Path, version: &str, files: &[(&str, String)]) {
    let target = folder.join(version);
    std::fs::create_dir(&target).unwrap();
    for (name, content) in files {
        std::fs::write(target.join(name), content).unwrap();
        let link = folder.join(name);
        if !link.is_symlink() {
            std::os::unix::fs::symlink(Path::new("..data").join(name), link).unwrap();
        }
    }
    let temporary = folder.join("..tmp");
    std::os::unix::fs::symlink(version, &temporary).unwrap();
    std::fs::rename(temporary, folder.join("..data")).unwrap();
}

/// The files of a Secret that cert-manager writes: a certificate for an hour, and its authority's.
fn secret(begins: SystemTime) -> [(&'static str, String); 3] {
    let mut ca = rcgen::CertificateParams::default();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let ca = rcgen::CertifiedIssuer::self_signed(ca, ca_key).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.not_before = begins.into();
    params.not_after = (begins + Duration::from_secs(3600)).into();
    let certificate = params.signed_by(&key, &ca).unwrap();
    [
        ("tls.crt", certificate.pem()),
        ("tls.key", key.serialize_pem()),
        ("ca.crt", ca.pem()),
    ]
}

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn reloads_changed_files_and_serves_only_valid_ones() {
    let folder = tempfile::tempdir().unwrap();
    let (now, clock) = (SystemTime::now(), clock());
    let [first, second, third] = [0, 1, 2].map(|_| secret(now));
    mount(folder.path(), "..1", &first);
    let tls = ServerTls::from_files(
        &folder.path().join("tls.crt"),
        &folder.path().join("tls.key"),
    )
    .unwrap();
    let mut ca = tls.ca_pem_changes();
    assert_eq!(ca.borrow_and_update().as_deref(), Some(&*first[2].1));
    assert_eq!(leaf(&tls, now), der(&first[0].1));
    tokio::spawn(tls.clone().keep_fresh(clock));
    let wait_for_check = async || tokio::time::sleep(FILE_CHECK_INTERVAL * 2).await;

    mount(folder.path(), "..2", &second);
    wait_for_check().await;
    assert_eq!(leaf(&tls, now), der(&second[0].1));
    assert_eq!(ca.borrow_and_update().as_deref(), Some(&*second[2].1));

    // The key of another certificate, an expired certificate, a truncated file, no files: none is served.
    let expired = secret(now - Duration::from_secs(7200));
    let key_of_another = [third[0].clone(), second[1].clone(), third[2].clone()];
    let mut half = third.clone();
    half[0].1.truncate(200);
    for (version, files) in [("..3", &key_of_another), ("..4", &expired), ("..5", &half)] {
        mount(folder.path(), version, files);
        wait_for_check().await;
        assert_eq!(leaf(&tls, now), der(&second[0].1), "{version}");
        assert!(!ca.has_changed().unwrap(), "{version}");
    }
    std::fs::remove_file(folder.path().join("..data")).unwrap();
    wait_for_check().await;
    assert_eq!(leaf(&tls, now), der(&second[0].1));

    mount(folder.path(), "..6", &third);
    wait_for_check().await;
    assert_eq!(leaf(&tls, now), der(&third[0].1));
    assert_eq!(ca.borrow_and_update().as_deref(), Some(&*third[2].1));
}

#[test]
fn offers_only_modern_cipher_suites() {
    let tls = ServerTls::self_signed(&["localhost".to_owned()]).unwrap();
    let config = tls.config().get_inner();
    for suite in &config.crypto_provider().cipher_suites {
        let name = format!("{:?}", suite.suite());
        let is_modern = name.starts_with("TLS13_")
            || (name.starts_with("TLS_ECDHE_")
                && (name.contains("GCM") || name.contains("POLY1305")));
        assert!(is_modern, "{name}");
    }
}
