//! Names that tenants choose are text, and everything else comes from the daemon.

use super::*;

#[tokio::test]
async fn hostile_names_are_shown_as_text() {
    let long = "g".repeat(249);
    let topic = "t".repeat(249);
    let rtl = "\u{202e}gnillib";
    let names = [
        "<script>alert(1)</script>",
        "\"><img src=x onerror=alert(1)>",
        "a&lt;b' onclick='x",
        "esc\u{1b}[2J\r\nbell\u{7}",
        rtl,
        &long,
    ];
    let mut hpas = Vec::new();
    let mut observations = Vec::new();
    for (place, name) in names.iter().enumerate() {
        let target = MetricTarget::AverageValue(Milli::ONE);
        let of = HpaFacts {
            metrics: fixtures::hpa("h", &format!("group=g{place}"), target).metrics,
            ..hpa(&format!("h{place}"), "g", "orders")
        };
        // Through annotations, since a label value cannot have such a name.
        let names = [("consumer-group", *name), ("topics", &topic)];
        hpas.push(annotated(of, &names));
        let read = fixtures::read(Duration::ZERO, name, &topic, &[ok(0, 5)]);
        let mut read = earlier(read, 0);
        read.groups[0].description = Ok(Arc::new(described(name, &topic)));
        observations.push(read);
    }
    hpas.push(HpaFacts {
        namespace: "<b>team</b>".into(),
        ..hpa("x\"><script>", "g", "orders")
    });
    let (router, _publisher) = served(snapshot(&hpas, observations));
    let mut pages = vec![
        get(&router, "/?q=%3Cscript%3E%22'").await,
        get(&router, "/").await,
    ];
    for (place, name) in names.iter().enumerate() {
        let (code, html) = get(&router, &format!("/hpas/shop/h{place}")).await;
        // A group with a control character cannot be requested. Other groups are found whatever their name.
        let has_owner = !name.contains(char::is_control);
        let shows_owner = html.contains("<small>/10.0.0.1</small>");
        assert_eq!(shows_owner, has_owner, "{name:?}: {html}");
        pages.push((code, html));
    }
    pages.push(get(&router, "/hpas/%3Cb%3Eteam%3C%2Fb%3E/x%22%3E%3Cscript%3E").await);
    pages.push(get(&router, "/hpas/%3Cscript%3E/%E2%80%AE").await);
    for (code, html) in &pages {
        assert!(*code == 200 || *code == 404, "{html}");
        assert!(html.chars().all(|c| c == '\n' || is_safe(c)), "{html:?}");
        // The only script is our own, and no element has an inline handler or style.
        assert_eq!(html.matches("<script").count(), 1, "{html}");
        for forbidden in [
            "<img",
            "<b>team",
            " onerror=alert(1)>",
            " onclick='",
            "style=",
        ] {
            assert!(!html.contains(forbidden), "{forbidden}: {html}");
        }
    }
    let of_topic = format!("Topic <code>{topic}</code>: 1 partition, lag 5");
    let has_topic = pages.iter().filter(|(_, html)| html.contains(&of_topic));
    // All but the group that cannot be requested.
    assert_eq!(has_topic.count(), names.len() - 1);
    let shown: String = pages.into_iter().map(|(_, html)| html).collect();
    for expected in [
        "&lt;script&gt;alert(1)&lt;/script&gt;",
        "esc\\u{1b}[2J\\r\\nbell\\u{7}",
        "\\u{202e}gnillib",
        long.as_str(),
    ] {
        assert!(shown.contains(expected), "{expected}");
    }
}

#[tokio::test]
async fn the_page_loads_only_its_own_files_and_has_nothing_inline() {
    let (router, _publisher) = served(every_state());
    for path in [
        "/",
        "/hpas/shop/capped",
        "/hpas/shop/none",
        "/assets/page.css",
        "/assets/page.js",
        "/assets/live.js",
        "/assets/charts.js",
        "/assets/icon.svg",
    ] {
        let response = response(&router, path).await;
        let headers = response.headers().clone();
        let policy = headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self';"));
        assert!(!policy.contains("unsafe"), "{policy}");
        assert!(!headers.contains_key("set-cookie"), "{path}");
        assert_eq!(headers["x-content-type-options"], "nosniff");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let text = String::from_utf8(body.to_vec()).unwrap();
        if path.starts_with("/assets") {
            assert!(
                !text.contains("@import") && !text.contains("url("),
                "{path}"
            );
            continue;
        }
        for (attribute, rest) in [" src=\"", " href=\"", " action=\""]
            .iter()
            .flat_map(|name| text.split(name).skip(1).map(move |rest| (name, rest)))
        {
            assert!(rest.starts_with('/'), "{path}: {attribute}{rest:.60}");
        }
        for inline in ["<style", "style=\"", " onload", "javascript:"] {
            assert!(!text.contains(inline), "{path}: {inline}");
        }
    }
    assert_eq!(get(&router, "/assets/other.js").await.0, 404);
    assert_eq!(get(&router, "/hpas/shop/none").await.0, 404);
    assert_eq!(get(&router, "/api/hpas/shop/none").await.0, 404);
    assert_eq!(get(&router, "/api/hpas/shop/capped?since=now").await.0, 400);
}
