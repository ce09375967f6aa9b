//! Server reflection, by which clients such as grpcurl learn what can be called and with which messages.
//!
//! The descriptors are those of the proto files beside this file, as a compiler of protobuf has made them; a test
//! compares them.

mod messages;

use std::collections::{BTreeMap, BTreeSet};
use std::future::ready;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use futures::stream::{BoxStream, unfold};
use prost::Message;
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::server::Grpc;
use tonic::{Code, Status, Streaming};
use tonic_prost::ProstCodec;
use tower::service_fn;

use self::messages::{
    DescribedFile, DescribedMessage, ErrorResponse, ExtensionNumberResponse,
    FileDescriptorResponse, FileSet, ListServiceResponse, ServiceResponse,
};
use super::streams::closed;
use crate::model::units::untrusted_text::Printable;
use crate::serve::holder_permits::{HolderPermit, HolderPermits};

pub(super) use self::messages::{
    ReflectionAnswer, ReflectionQuestion, ReflectionRequest, ReflectionResponse,
};

/// Paths of the call, newest first. Both versions have the same messages.
pub(super) const PATHS: [&str; 2] = [
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// Maximum bytes of a request, which is a name.
const MAX_REQUEST_BYTES: usize = 4096;

/// Maximum number of open reflections, half of them for one address. A client needs one for a moment.
pub(super) const MAX_REFLECTIONS: usize = 16;

/// A reflection ends after this time without a request. Clients open another one when they need it.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// A `FileDescriptorSet` of the proto files.
const DESCRIPTORS: &[u8] = include_bytes!("services.protoset");

static CATALOG: LazyLock<Catalog> = LazyLock::new(|| Catalog::read(DESCRIPTORS));

/// The proto files, and where each name is defined.
#[derive(Debug, Default)]
struct Catalog {
    /// Descriptors of files by their names.
    files: BTreeMap<String, Vec<u8>>,
    services: BTreeSet<String>,
    /// Names of messages.
    messages: BTreeSet<String>,
    /// The file of each full name of a service, method, message or enum.
    symbols: BTreeMap<String, String>,
}

impl Catalog {
    fn read(set: &[u8]) -> Self {
        let mut catalog = Self::default();
        // What is compiled in can be read: a test does so.
        for bytes in FileSet::decode(set).unwrap_or_default().files {
            let file = DescribedFile::decode(&*bytes).unwrap_or_default();
            for message in &file.messages {
                catalog.add_message(&file.package, message, &file.name);
            }
            for service in &file.services {
                let full = format!("{}.{}", file.package, service.name);
                for method in &service.methods {
                    let method = format!("{full}.{}", method.name);
                    catalog.symbols.insert(method, file.name.clone());
                }
                catalog.symbols.insert(full.clone(), file.name.clone());
                catalog.services.insert(full);
            }
            catalog.files.insert(file.name, bytes);
        }
        catalog
    }

    fn add_message(&mut self, within: &str, message: &DescribedMessage, file: &str) {
        let full = format!("{within}.{}", message.name);
        for nested in &message.nested {
            self.add_message(&full, nested, file);
        }
        for named in &message.enums {
            let named = format!("{full}.{}", named.name);
            self.symbols.insert(named, file.to_owned());
        }
        self.symbols.insert(full.clone(), file.to_owned());
        self.messages.insert(full);
    }

    fn answer(&self, question: Option<&ReflectionQuestion>) -> ReflectionAnswer {
        let file = |name: Option<&String>| {
            let bytes = name.and_then(|name| self.files.get(name)).cloned();
            bytes.map(|bytes| ReflectionAnswer::File(FileDescriptorResponse { files: vec![bytes] }))
        };
        let (answer, requested) = match question {
            None => {
                return error(
                    Code::InvalidArgument,
                    "the request asks nothing that lagwise knows",
                );
            }
            Some(ReflectionQuestion::FileByFilename(name)) => (file(Some(name)), name),
            Some(ReflectionQuestion::FileContainingSymbol(name)) => {
                (file(self.symbols.get(name.trim_start_matches('.'))), name)
            }
            Some(ReflectionQuestion::FileContainingExtension(requested)) => {
                (None, &requested.containing_type)
            }
            Some(ReflectionQuestion::AllExtensionNumbersOfType(name)) => {
                let numbers = self.messages.contains(name).then(|| {
                    ReflectionAnswer::ExtensionNumbers(ExtensionNumberResponse {
                        base_type_name: name.clone(),
                        extension_number: Vec::new(),
                    })
                });
                (numbers, name)
            }
            Some(ReflectionQuestion::ListServices(_)) => {
                let names = self.services.iter().cloned();
                let service = names.map(|name| ServiceResponse { name }).collect();
                return ReflectionAnswer::Services(ListServiceResponse { service });
            }
        };
        answer.unwrap_or_else(|| {
            let text = format!("lagwise has no {}", Printable::name(requested));
            error(Code::NotFound, &text)
        })
    }
}

fn error(code: Code, text: &str) -> ReflectionAnswer {
    ReflectionAnswer::Error(ErrorResponse {
        error_code: code.into(),
        error_message: text.to_owned(),
    })
}

/// The reflection service.
#[derive(Debug)]
pub(super) struct Reflection {
    /// Permits of open reflections, by address.
    permits: HolderPermits,
    /// Becomes true at shutdown, which ends all reflections.
    closing: watch::Receiver<bool>,
}

impl Reflection {
    pub(super) fn new(closing: watch::Receiver<bool>) -> Self {
        let permits = HolderPermits::new(MAX_REFLECTIONS);
        Self { permits, closing }
    }

    /// Opens a reflection for a caller at this address. Its requests come one by one while it is open.
    pub(super) async fn open(&self, request: Request, address: &str) -> Result<Response, Status> {
        let permit = self.permits.try_acquire(address).ok_or_else(|| {
            Status::resource_exhausted(format!(
                "at most {MAX_REFLECTIONS} reflections may be open, and half of them for one address"
            ))
        })?;
        let open = (Arc::new(permit), self.closing.clone());
        let service = service_fn(
            move |requests: tonic::Request<Streaming<ReflectionRequest>>| {
                let (permit, closing) = open.clone();
                let answers = answer_all(requests.into_inner(), closing, permit);
                ready(Ok::<_, Status>(tonic::Response::new(answers)))
            },
        );
        let mut grpc =
            Grpc::new(ProstCodec::default()).max_decoding_message_size(MAX_REQUEST_BYTES);
        Ok(grpc.streaming(service, request).await.map(Body::new))
    }
}

/// Answers requests one by one, until there are no more, none comes for long, or the server shuts down.
fn answer_all(
    requests: Streaming<ReflectionRequest>,
    closing: watch::Receiver<bool>,
    permit: Arc<HolderPermit>,
) -> BoxStream<'static, Result<ReflectionResponse, Status>> {
    let state = Some((requests, closing, permit));
    let answers = unfold(state, async |state| {
        let (mut requests, mut closing, permit) = state?;
        let next = tokio::select! {
            biased;
            () = closed(&mut closing) => return None,
            next = timeout(IDLE_TIMEOUT, requests.message()) => next.ok()?,
        };
        match next {
            Ok(request) => {
                let request = request?;
                let response = ReflectionResponse {
                    valid_host: request.host.clone(),
                    answer: Some(CATALOG.answer(request.question.as_ref())),
                    original_request: Some(request),
                };
                Some((Ok(response), Some((requests, closing, permit))))
            }
            Err(status) => Some((Err(status), None)),
        }
    });
    Box::pin(answers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(question: ReflectionQuestion) -> ReflectionAnswer {
        CATALOG.answer(Some(&question))
    }

    fn file(question: ReflectionQuestion) -> Option<String> {
        match answer(question) {
            ReflectionAnswer::File(FileDescriptorResponse { files }) => {
                assert_eq!(files.len(), 1);
                Some(DescribedFile::decode(&*files[0]).unwrap().name)
            }
            ReflectionAnswer::Error(error) => {
                assert_eq!(error.error_code, i32::from(Code::NotFound));
                None
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn lists_every_service_that_is_served() {
        let ReflectionAnswer::Services(list) = answer(ReflectionQuestion::ListServices("*".into()))
        else {
            panic!("no list");
        };
        let names: Vec<_> = list.service.iter().map(|s| s.name.as_str()).collect();
        let served = [
            "externalscaler.ExternalScaler",
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
        ];
        assert_eq!(names, served);
    }

    #[test]
    fn finds_files_by_name_and_by_what_they_define() {
        let by_symbol = |name: &str| file(ReflectionQuestion::FileContainingSymbol(name.into()));
        for (symbol, expected) in [
            (
                "externalscaler.ExternalScaler",
                Some("externalscaler.proto"),
            ),
            (
                "externalscaler.ExternalScaler.StreamIsActive",
                Some("externalscaler.proto"),
            ),
            ("externalscaler.MetricValue", Some("externalscaler.proto")),
            (
                "externalscaler.ScaledObjectRef.ScalerMetadataEntry",
                Some("externalscaler.proto"),
            ),
            (
                "grpc.health.v1.HealthCheckResponse.ServingStatus",
                Some("health.proto"),
            ),
            (".grpc.health.v1.Health", Some("health.proto")),
            (
                "grpc.reflection.v1.ServerReflectionRequest",
                Some("reflection.proto"),
            ),
            ("externalscaler", None),
            ("ExternalScaler", None),
            ("", None),
        ] {
            assert_eq!(by_symbol(symbol).as_deref(), expected, "{symbol}");
        }
        let by_name = |name: &str| file(ReflectionQuestion::FileByFilename(name.into()));
        assert_eq!(by_name("health.proto").as_deref(), Some("health.proto"));
        assert_eq!(by_name("../health.proto"), None);
    }

    #[test]
    fn extensions_do_not_exist() {
        let numbers =
            |name: &str| answer(ReflectionQuestion::AllExtensionNumbersOfType(name.into()));
        assert!(matches!(
            numbers("externalscaler.MetricSpec"),
            ReflectionAnswer::ExtensionNumbers(found) if found.extension_number.is_empty()
        ));
        assert!(matches!(numbers("other.Type"), ReflectionAnswer::Error(_)));
        let error = CATALOG.answer(None);
        assert!(matches!(error, ReflectionAnswer::Error(error) if error.error_code == 3));
    }
}
