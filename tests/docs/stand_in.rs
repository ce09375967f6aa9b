//! Runs commands of a guide with a stand-in for kubectl.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::markdown::Page;

/// What the template of the guide prints, and the number that `maxReplicas` is set to.
const HPAS: [(&str, u32); 9] = [
    (r#"shop:billing:12:1:"12":"20""#, 20),
    // minReplicas is above the ceiling.
    (r#"shop:mail:15:15:"12":"20""#, 20),
    // Somebody has changed maxReplicas since, up or down, or pinned the replicas.
    (r#"shop:raised:30:1:"12":"20""#, 30),
    (r#"shop:lowered:5:1:"12":"20""#, 5),
    (r#"shop:pinned:10:10:"12":"20""#, 10),
    // The ceiling is above the number, or missing.
    (r#"shop:free:20:1:"2147483647":"20""#, 20),
    (r#"shop:odd:7:1:"%!q(<nil>)":"20""#, 7),
    // A person wrote no number, or more than one line.
    (r#"shop:words:7:1:"7":"many""#, 7),
    (r#"shop:lines:7:1:"7":"9\nprod:api:1:1:1:99""#, 7),
];

#[test]
fn kubectl_alone_restores_the_maxima() {
    let page = Page::read("docs/src/guides/troubleshooting.md");
    let block = page.blocks().into_iter().find(|block| block.has("release"));
    let script = block.unwrap().content;
    let place = tempfile::tempdir().unwrap();
    let (listed, patched) = (place.path().join("listed"), place.path().join("patched"));
    let lines: String = HPAS.iter().map(|(line, _)| format!("{line}\n")).collect();
    fs::write(&listed, lines).unwrap();
    // Patches are recorded, a line each.
    let kubectl = place.path().join("kubectl");
    let stand_in = format!(
        "#!/bin/sh\ncase $1 in get) cat {} ;; *) echo \"$@\" >>{} ;; esac\n",
        listed.display(),
        patched.display()
    );
    fs::write(&kubectl, stand_in).unwrap();
    fs::set_permissions(&kubectl, fs::Permissions::from_mode(0o755)).unwrap();
    let path = std::env::var("PATH").unwrap();
    let path = format!("{}:{path}", place.path().display());
    let mut shell = Command::new("sh");
    let output = shell
        .args(["-euc", &script])
        .env("PATH", path)
        .output()
        .unwrap();
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
    let expected = HPAS.iter().map(|(line, max)| {
        let name = line.split(':').nth(1).unwrap();
        let patch = r#"{"metadata":{"annotations":{"lagwise.dev/ceiling":null,"lagwise.dev/user-max-replicas":null,"lagwise.dev/epoch":null}},"spec":{"maxReplicas":MAX}}"#;
        let patch = patch.replace("MAX", &max.to_string());
        format!("--namespace shop patch hpa {name} --type merge --patch {patch}\n")
    });
    let expected: String = expected.collect();
    assert_eq!(fs::read_to_string(&patched).unwrap(), expected);
}
