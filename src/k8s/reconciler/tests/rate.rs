//! How many passes run at once.

use std::sync::Mutex;

use serde_json::json;

use super::*;

/// The term has to be written to all HPAs.
#[tokio::test(start_paused = true)]
async fn passes_run_at_a_bounded_rate_and_each_hpa_has_one() {
    #[derive(Default)]
    struct Load {
        now: usize,
        most: usize,
        patches: BTreeMap<String, usize>,
    }
    let load = Arc::new(Mutex::new(Load::default()));
    let counted = Arc::clone(&load);
    let serve = move |request: Request<Body>| {
        let load = Arc::clone(&counted);
        async move {
            let name = request.uri().path().rsplit('/').next().unwrap().to_owned();
            {
                let mut load = load.lock().unwrap();
                load.now += 1;
                load.most = load.most.max(load.now);
                if request.method() == "PATCH" {
                    *load.patches.entry(name.clone()).or_default() += 1;
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            load.lock().unwrap().now -= 1;
            let hpa = json!({
                "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
                "metadata": {"namespace": "shop", "name": name, "uid": name, "resourceVersion": "1",
                    "annotations": {"lagwise.dev/cap": "enforce"}},
                "spec": {"maxReplicas": 20, "scaleTargetRef": {"kind": "Deployment", "name": "d"}},
            });
            let body = Body::from(hpa.to_string().into_bytes());
            Ok::<_, Infallible>(Response::new(body))
        }
    };
    let client = Client::new(tower::service_fn(serve), "shop");
    let (mut guard, publisher) = leader(client, 7, Duration::from_secs(600));
    let facts = (0..50).map(|n| {
        Arc::new(HpaFacts {
            namespace: "shop".into(),
            name: format!("hpa-{n:02}").into(),
            uid: format!("hpa-{n:02}").into(),
            annotations: [("lagwise.dev/cap".to_owned(), "enforce".to_owned())].into(),
            ..HpaFacts::default()
        })
    });
    guard.hpas = watch::channel(Some(facts.collect())).1;
    let running = tokio::spawn(run(guard, options()));
    for _ in 0..3 {
        tokio::task::yield_now().await;
        publisher
            .of_term(7)
            .publish(crate::model::fixtures::snapshot());
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    let load = load.lock().unwrap();
    assert_eq!(load.most, MAX_PASSES);
    assert_eq!(load.patches.len(), 50);
    assert!(
        load.patches.values().all(|patches| *patches == 1),
        "{:?}",
        load.patches
    );
    running.abort();
}
