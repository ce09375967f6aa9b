//! Logins: secrets are referred to and never copied.

use super::*;

#[test]
fn secrets_are_never_copied() {
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {password: hunter2, username: me}\n";
    let authentication = "apiVersion: keda.sh/v1alpha1\nkind: TriggerAuthentication\nmetadata: {name: a}\nspec:\n  \
         secretTargetRef:\n    - {parameter: username, name: s, key: username}\n    - {parameter: password, name: s, key: password}\n";
    let conversion = written(&[object("a").as_str(), secret, authentication].join("---\n"));
    let all = format!(
        "{}{}{}",
        render(&conversion, Print::Hpas).unwrap(),
        render(&conversion, Print::Config).unwrap(),
        serde_json::to_string(&conversion).unwrap()
    );
    assert!(!all.contains("hunter2"), "{all}");
    assert!(
        all.contains("${file:/etc/lagwise/keda/default/s/password}"),
        "{all}"
    );
}

#[test]
fn passwords_in_config_maps_are_not_copied_either() {
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\ndata: {password: hunter2, username: me}\n";
    let authentication = "apiVersion: keda.sh/v1alpha1\nkind: TriggerAuthentication\nmetadata: {name: a}\nspec:\n  \
         configMapTargetRef:\n    - {parameter: username, name: m, key: username}\n    - {parameter: password, name: m, key: password}\n";
    let conversion = written(&[object("a").as_str(), map, authentication].join("---\n"));
    let config = render(&conversion, Print::Config).unwrap();
    assert!(!config.contains("hunter2"), "{config}");
    for expected in [
        "sasl.username: me",
        "${file:/etc/lagwise/keda/default/m/password}",
        "to do: ConfigMap \"m\" of namespace default at /etc/lagwise/keda/default/m: copy it",
    ] {
        assert!(config.contains(expected), "{config}");
    }
}

#[test]
fn config_maps_of_a_cluster_trigger_authentication_are_in_the_namespace_of_keda() {
    let map = |namespace: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: m, namespace: {namespace}}}\ndata: {{user: of-{namespace}}}\n"
        )
    };
    let authentication = "apiVersion: keda.sh/v1alpha1\nkind: ClusterTriggerAuthentication\nmetadata: {name: a}\nspec:\n  \
         configMapTargetRef: [{parameter: username, name: m, key: user}]\n";
    let of_cluster = object("a").replace(
        "authenticationRef: {name: a}",
        "authenticationRef: {name: a, kind: ClusterTriggerAuthentication}",
    );
    let documents = [
        of_cluster,
        map("default"),
        map("keda"),
        authentication.to_owned(),
    ];
    let config = render(&written(&documents.join("---\n")), Print::Config).unwrap();
    assert!(config.contains("sasl.username: of-keda"), "{config}");
}

/// The author of a ScaledObject must not choose which files and variables lagwise reads.
#[test]
fn names_and_servers_cannot_contain_references() {
    let authentication = |spec: &str| {
        format!(
            "apiVersion: keda.sh/v1alpha1\nkind: TriggerAuthentication\nmetadata: {{name: a}}\nspec: {spec}\n"
        )
    };
    for spec in [
        "{secretTargetRef: [{parameter: password, name: ../../../../var/run, key: token}]}",
        "{secretTargetRef: [{parameter: password, name: s, key: ..}]}",
        "{secretTargetRef: [{parameter: password, name: \"s}${file:/token\", key: a}]}",
        "{configMapTargetRef: [{parameter: password, name: ../s, key: a}]}",
        "{env: [{parameter: password, name: \"A}${file:/token\"}]}",
    ] {
        let conversion = written(&[object("a"), authentication(spec)].join("---\n"));
        let config = serde_json::to_string(&conversion.config).unwrap();
        assert!(!config.contains("${"), "{spec}: {config}");
        let notes = &conversion.objects[0].notes;
        let is_left_out = |note: &Note| note.text.starts_with("password is left out");
        assert!(notes.iter().any(is_left_out), "{spec}: {notes:?}");
    }
    let servers = object("a").replace("k:9092", "${file:/token}:9092");
    let config = render(&written(&servers), Print::Config).unwrap();
    assert!(config.contains("$${file:/token}:9092"), "{config}");
    let variable = object("a").replace(
        "bootstrapServers: \"k:9092\"",
        "bootstrapServersFromEnv: \"A}${file:/token\"",
    );
    let conversion = written(&variable);
    assert_eq!(conversion.config, None);
    assert!(conversion.objects[0].needs_attention());
}

#[test]
fn authentications_with_one_name_are_distinguished_by_their_file() {
    let authentication = |variable: &str| {
        format!(
            "apiVersion: keda.sh/v1alpha1\nkind: TriggerAuthentication\nmetadata: {{name: a}}\nspec:\n  \
             env: [{{parameter: username, name: {variable}}}, {{parameter: password, name: P}}]\n"
        )
    };
    let folder = tempfile::tempdir().unwrap();
    for (file, variable) in [("a.yaml", "USER_A"), ("b.yaml", "USER_B")] {
        let text = [object(&file[..1]), authentication(variable)].join("---\n");
        std::fs::write(folder.path().join(file), text).unwrap();
    }
    let both = converted(folder.path(), &[]);
    let config = render(&both, Print::Config).unwrap();
    assert!(
        config.contains("${env:USER_A}") && config.contains("${env:USER_B}"),
        "{config}"
    );
    std::fs::write(folder.path().join("c.yaml"), object("c")).unwrap();
    let ambiguous = converted(folder.path(), &[]);
    let notes = &ambiguous.objects[2].notes;
    assert!(
        notes[0].text.contains("is among the files 2 times"),
        "{notes:?}"
    );
}

#[test]
fn the_configuration_lists_missing_settings_of_logins() {
    let text = |name: &str| {
        let path = corpus().into_iter().find(|path| stem(path) == name);
        render(&converted(&path.unwrap(), &[]), Print::Config).unwrap()
    };
    let unknown = text("25-sasl-scram-in-secret");
    assert!(
        unknown
            .contains("# ScaledObject shop/payments-scram: to do: triggers[0].authenticationRef"),
        "{unknown}"
    );
    let complete = text("29-oauthbearer");
    assert!(!complete.contains("# ScaledObject"), "{complete}");
}
