//! Configured librdkafka properties, with secrets kept out of logs.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};

use super::foreign_keys;
use super::login::{self, LoginCheck};
use super::node::ScalarValue;
use super::problem::Problem;
use super::property_names::{
    PROPERTY_NAME, PropertyRefusal, REFUSED, check_name, is_secret, plain_part,
};
use super::secrets::{Environment, expand, referred_files, refers_to_file};
use super::section::{Field, Section};
use super::servers;

const REDACTED: &str = "[redacted]";

/// librdkafka properties by name. `Debug` and `Serialize` show no value that came from a reference
/// or that is a secret by its name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Properties(BTreeMap<String, PropertyValue>);

/// A property's value, shown as `[redacted]` if secret.
#[derive(Clone, PartialEq, Eq)]
pub struct PropertyValue {
    text: String,
    secret: bool,
    /// The text as configured, if it refers to files, which may change.
    written: Option<String>,
}

impl fmt::Debug for PropertyValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.redacted(), f)
    }
}

impl Serialize for PropertyValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.redacted())
    }
}

impl PropertyValue {
    fn redacted(&self) -> &str {
        if self.secret { REDACTED } else { &self.text }
    }

    /// The real value, even if secret.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it refers to files.
    pub(super) fn refers_to_files(&self) -> bool {
        self.written.is_some()
    }

    /// The paths of the files that it refers to.
    pub(super) fn referred_files(&self) -> Vec<&str> {
        self.written
            .as_deref()
            .map(referred_files)
            .unwrap_or_default()
    }

    /// Reads the files of the value again; the error names the file that cannot be read.
    pub(super) fn reread(&self, name: &str, environment: &dyn Environment) -> Result<Self, String> {
        let Some(written) = &self.written else {
            return Ok(self.clone());
        };
        read_text(name, written, environment).map_err(|refusals| {
            let first = refusals.into_iter().next();
            let (problem, _) = first.map(|(_, refusal)| refusal).unwrap_or_default();
            format!("{name}: {problem}")
        })
    }
}

impl Properties {
    /// Names and real values, including secrets, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.text.as_str()))
    }

    /// The real value of `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|value| value.text.as_str())
    }

    /// The value of `name` for logs and messages: `[redacted]` if secret.
    #[must_use]
    pub fn redacted(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(PropertyValue::redacted)
    }

    /// Sets `name` to `value` without any check or replacement; [`set`](Self::set) does both.
    pub fn insert(&mut self, name: impl Into<String>, value: impl Into<String>) {
        let name = name.into();
        let secret = is_secret(&name);
        self.0.insert(
            name,
            PropertyValue {
                text: value.into(),
                secret,
                written: None,
            },
        );
    }

    /// Sets `name` to `text` by the rules of the configuration file: references are replaced and
    /// properties managed by lagwise are refused. The key of a problem is the property's name.
    ///
    /// # Errors
    /// All problems; the properties are unchanged then.
    pub fn set(
        &mut self,
        name: &str,
        text: &str,
        environment: &dyn Environment,
    ) -> Result<(), Vec<Problem>> {
        let problem = |value, (problem, allowed): PropertyRefusal| Problem {
            key: plain_part(name).into_owned(),
            value,
            allowed: Some(allowed),
            ..Problem::of_file(problem)
        };
        let value = check_name(name)
            .map_err(|refusal| vec![problem(None, refusal)])
            .and_then(|()| {
                read_text(name, text, environment).map_err(|refusals| {
                    refusals
                        .into_iter()
                        .map(|(value, refusal)| problem(value, refusal))
                        .collect()
                })
            })?;
        self.0.insert(name.to_owned(), value);
        Ok(())
    }

    /// The files that values refer to, each with the name of the property.
    pub(super) fn referred_files(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().flat_map(|(name, value)| {
            let files = value.referred_files().into_iter();
            files.map(|file| (name.as_str(), file))
        })
    }

    /// Whether any value refers to files.
    pub(super) fn refers_to_files(&self) -> bool {
        self.0.values().any(PropertyValue::refers_to_files)
    }

    /// Reads the files of all values again; the error names the file that cannot be read.
    pub(super) fn reread(&self, environment: &dyn Environment) -> Result<Self, String> {
        let reread = |(name, value): (&String, &PropertyValue)| {
            Ok((name.clone(), value.reread(name, environment)?))
        };
        self.0
            .iter()
            .map(reread)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Reads a cluster's properties; records all problems.
    pub(super) fn read(
        mut section: Section<'_>,
        has_token: bool,
        environment: &dyn Environment,
    ) -> Self {
        section.required("bootstrap.servers", SERVERS);
        let mut properties = Self::default();
        let fields = section.free_entries();
        for (name, field) in &fields {
            if let Some(meaning) = foreign_keys::meaning("clusters[].properties", name) {
                field.refuse_unseen(format!("unknown, {meaning}"), PROPERTY_NAME);
            } else if let Err((problem, allowed)) = check_name(name) {
                if is_secret(name) || plain_part(name) != *name {
                    field.refuse_unseen(problem, allowed);
                } else {
                    field.refuse(problem, allowed);
                }
            } else if let Some(value) = read_value(name, field, environment) {
                properties.0.insert((*name).to_owned(), value);
            }
        }
        let login = LoginCheck {
            properties: &properties,
            fields: &fields,
            has_token,
        };
        login.run();
        properties
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Properties {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        let mut properties = Self::default();
        for (name, value) in pairs {
            properties.insert(name, value);
        }
        properties
    }
}

impl JsonSchema for Properties {
    fn schema_name() -> Cow<'static, str> {
        "Properties".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        // A reference may stand for any value.
        let one_of = |names: &[&str]| format!("^({}|.*\\$\\{{.*)$", names.join("|"));
        let lower = login::PROTOCOLS.map(str::to_ascii_lowercase);
        let protocols = lower.iter().map(String::as_str).chain(login::PROTOCOLS);
        let refused = REFUSED.iter().map(|(name, ..)| *name);
        let foreign = foreign_keys::keys_at("clusters[].properties");
        let refused: Vec<_> = refused
            .chain(foreign.filter(|name| plain_part(name) == **name))
            .map(|name| name.replace('.', r"\."))
            .collect();
        let refused = format!("^({})$", refused.join("|"));
        let protocol = one_of(&protocols.collect::<Vec<_>>());
        json_schema!({
            "type": "object",
            "required": ["bootstrap.servers"],
            "propertyNames": { "pattern": "^[a-z0-9._]+$" },
            "patternProperties": {
                r"^bootstrap\.servers$": {
                    "type": "string",
                    "pattern": r"^(\s*([A-Za-z_]+://)?[^\s,/;]+\s*(,\s*([A-Za-z_]+://)?[^\s,/;]+\s*)*|.*\$\{.*)$",
                },
                r"^security\.protocol$": {
                    "type": "string",
                    "pattern": protocol,
                },
                r"^sasl\.mechanisms?$": { "type": "string", "pattern": one_of(&login::MECHANISMS) },
                (refused): false,
            },
            "dependentRequired": login::needs_protocol(),
            "additionalProperties": { "type": ["string", "number", "boolean"] },
        })
    }
}

const SERVERS: &str = "HOST:PORT of one or more brokers, separated by commas";

pub(super) fn read_value(
    name: &str,
    field: &Field<'_>,
    environment: &dyn Environment,
) -> Option<PropertyValue> {
    const ALLOWED: &str = "a text, a number, true or false";
    let text = match &field.node.value {
        ScalarValue::Text(text) => text,
        ScalarValue::Bool(_, spelling) | ScalarValue::Number(_, spelling) => spelling,
        ScalarValue::Null => {
            // A missing bootstrap.servers is already reported.
            if name != "bootstrap.servers" {
                field.refuse_unseen("has no value", "a value; or remove the property");
            }
            return None;
        }
        ScalarValue::List(_) => {
            field.refuse_unseen(
                "a list, not a text",
                "one text with its parts separated by commas",
            );
            return None;
        }
        ScalarValue::Mapping(_) => {
            field.refuse_unseen(
                "a mapping, not a text",
                format!("{ALLOWED}; a name with dots is one key, such as {name}.x: y"),
            );
            return None;
        }
    };
    match read_text(name, text, environment) {
        Ok(value) => Some(value),
        Err(refusals) => {
            for (value, (problem, allowed)) in refusals {
                field.refuse_showing(value, problem, allowed);
            }
            None
        }
    }
}

/// Resolves `text`; the error lists each problem with the part of the text that may be shown.
fn read_text(
    name: &str,
    text: &str,
    environment: &dyn Environment,
) -> Result<PropertyValue, Vec<(Option<String>, PropertyRefusal)>> {
    let expanded = expand(text, environment).map_err(|bad| {
        let refusal =
            |bad: super::secrets::BadReference| (Some(bad.reference), (bad.problem, bad.allowed));
        bad.into_iter().map(refusal).collect::<Vec<_>>()
    })?;
    let value = PropertyValue {
        secret: expanded.referred || is_secret(name),
        text: expanded.text,
        written: refers_to_file(text).then(|| text.to_owned()),
    };
    let shown = || (!value.secret).then(|| format!("{:?}", value.text));
    // librdkafka uses C strings.
    if value.text.contains('\0') {
        return Err(vec![(
            None,
            (
                "contains a NUL character".into(),
                "a text without it".into(),
            ),
        )]);
    }
    if name == "bootstrap.servers" {
        servers::check(&value.text, value.secret)
            .map_err(|problem| vec![(shown(), (problem, SERVERS.into()))])?;
    }
    Ok(value)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::secrets::tests::Pretended;

    #[test]
    fn redacts_secrets_everywhere_but_for_the_client() {
        let environment = Pretended {
            variables: [("LOGIN", "hunter2")].into(),
            ..Pretended::default()
        };
        let mut properties: Properties = [("sasl.password", "hunter2"), ("client.id", "me")]
            .into_iter()
            .collect();
        properties
            .set("sasl.username", "${env:LOGIN}", &environment)
            .unwrap();
        assert_eq!(properties.get("sasl.username"), Some("hunter2"));
        assert_eq!(properties.redacted("sasl.username"), Some("[redacted]"));
        assert_eq!(properties.redacted("client.id"), Some("me"));
        assert_eq!(
            properties
                .iter()
                .filter(|(_, value)| *value == "hunter2")
                .count(),
            2
        );
        for shown in [
            format!("{properties:?}"),
            format!("{properties:#?}"),
            serde_json::to_string(&properties).unwrap(),
        ] {
            assert!(
                !shown.contains("hunter2") && shown.contains("me"),
                "{shown}"
            );
        }
    }

    #[test]
    fn set_applies_the_rules_of_the_file() {
        let mut properties = Properties::default();
        let mut refusal = |name: &str, text: &str| {
            properties
                .set(name, text, &Pretended::default())
                .unwrap_err()[0]
                .to_string()
        };
        assert_eq!(
            refusal("group.id", "x"),
            "group.id: managed by lagwise; allowed: remove it"
        );
        assert_eq!(
            refusal("sasl.password", "${env:NO}"),
            "sasl.password: ${env:NO}: the environment variable NO is not set; \
             allowed: a variable that is set before lagwise starts"
        );
        assert_eq!(
            refusal("sasl.password=hunter2", "x"),
            "sasl.password...: not a property name; \
             allowed: a property of librdkafka: lower-case letters, digits, . _"
        );
        assert_eq!(properties, Properties::default());
    }
}
