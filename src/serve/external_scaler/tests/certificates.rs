//! Callers need a certificate of the authority.

use super::*;

#[tokio::test]
async fn only_certificates_of_the_authority_are_let_in() {
    let (issuer, other) = (Issuer::new("keda"), Issuer::new("other"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.crt");
    std::fs::write(&file, issuer.pem()).unwrap();
    let (authority, auth) = ClientCa::read(file.clone()).unwrap();
    let rig = TestScaler::with_authority(&authority, auth);
    rig.lag.send_replace(Some(3));
    // The handshake fails, so that there is no connection for streams or health checks.
    let refused_for = async |identity| {
        let read = async {
            let mut stream = rig.dial(identity).await?;
            stream.read_u8().await
        };
        format!("{:?}", read.await.unwrap_err())
    };
    for (identity, alert) in [
        (None, "CertificateRequired"),
        (Some(other.client("keda")), "UnknownCA"),
        (Some(issuer.expired_client("keda")), "CertificateExpired"),
    ] {
        let refused = refused_for(identity).await;
        assert!(refused.contains(alert), "{refused}");
    }
    let client = rig.connect_as(Some(issuer.client("keda"))).await;
    assert!(client.is_active(object(&[])).await.unwrap());
    let asked = HealthCheckRequest::default();
    let health: Result<HealthCheckResponse, _> = client.call(messages::HEALTH_CHECK, asked).await;
    assert_eq!(health.unwrap().status(), HealthStatus::Serving);

    // Other authorities count for open connections too, and a file without any changes nothing.
    tokio::spawn(authority.keep_fresh());
    tokio::task::yield_now().await;
    for (text, refused) in [
        ("", "UnknownCA"),
        (&*other.pem(), "UnknownCA"),
        ("no certificate", "UnknownCA"),
    ] {
        std::fs::write(&file, text).unwrap();
        // Longer than a verified certificate is cached, and than the interval at which the file is checked.
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(11)).await;
        tokio::time::resume();
        let (in_use, not) = match text {
            "" => (&issuer, &other),
            _ => (&other, &issuer),
        };
        let found = refused_for(Some(not.client("keda"))).await;
        assert!(found.contains(refused), "{text:?}: {found}");
        let allowed = rig.connect_as(Some(in_use.client("keda"))).await;
        assert!(allowed.is_active(object(&[])).await.unwrap(), "{text:?}");
        let answer = client.is_active(object(&[])).await;
        match text {
            "" => assert!(answer.unwrap()),
            _ => {
                let status = answer.unwrap_err();
                assert_eq!(status.code(), Code::Unauthenticated, "{status}");
                assert!(status.message().contains("client_ca_file"), "{status}");
            }
        }
    }
}

#[test]
fn a_file_without_an_authority_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.crt");
    let missing = ClientCa::read(file.clone()).unwrap_err().to_string();
    assert!(
        missing.contains("ca.crt (server.external_scaler.client_ca_file)"),
        "{missing}"
    );
    std::fs::write(&file, "no certificate").unwrap();
    assert!(ClientCa::read(file).is_err());
}
