//! The messages of `reflection.proto`, and those of protobuf's descriptors as far as names are found by them. Written
//! by hand, as those of the external scaler.

use prost::{Message, Oneof};

#[derive(Clone, PartialEq, Message)]
pub(in crate::serve::external_scaler) struct ReflectionRequest {
    #[prost(string, tag = "1")]
    pub(in crate::serve::external_scaler) host: String,
    #[prost(oneof = "ReflectionQuestion", tags = "3, 4, 5, 6, 7")]
    pub(in crate::serve::external_scaler) question: Option<ReflectionQuestion>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(in crate::serve::external_scaler) enum ReflectionQuestion {
    #[prost(string, tag = "3")]
    FileByFilename(String),
    #[prost(string, tag = "4")]
    FileContainingSymbol(String),
    #[prost(message, tag = "5")]
    FileContainingExtension(ExtensionRequest),
    #[prost(string, tag = "6")]
    AllExtensionNumbersOfType(String),
    #[prost(string, tag = "7")]
    ListServices(String),
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::serve::external_scaler) struct ExtensionRequest {
    #[prost(string, tag = "1")]
    pub(super) containing_type: String,
    #[prost(int32, tag = "2")]
    pub(super) extension_number: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::serve::external_scaler) struct ReflectionResponse {
    #[prost(string, tag = "1")]
    pub(super) valid_host: String,
    #[prost(message, optional, tag = "2")]
    pub(in crate::serve::external_scaler) original_request: Option<ReflectionRequest>,
    #[prost(oneof = "ReflectionAnswer", tags = "4, 5, 6, 7")]
    pub(in crate::serve::external_scaler) answer: Option<ReflectionAnswer>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(in crate::serve::external_scaler) enum ReflectionAnswer {
    #[prost(message, tag = "4")]
    File(FileDescriptorResponse),
    #[prost(message, tag = "5")]
    ExtensionNumbers(ExtensionNumberResponse),
    #[prost(message, tag = "6")]
    Services(ListServiceResponse),
    #[prost(message, tag = "7")]
    Error(ErrorResponse),
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::serve::external_scaler) struct FileDescriptorResponse {
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub(super) files: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::serve::external_scaler) struct ExtensionNumberResponse {
    #[prost(string, tag = "1")]
    pub(super) base_type_name: String,
    #[prost(int32, repeated, tag = "2")]
    pub(super) extension_number: Vec<i32>,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::serve::external_scaler) struct ListServiceResponse {
    #[prost(message, repeated, tag = "1")]
    pub(super) service: Vec<ServiceResponse>,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::serve::external_scaler) struct ServiceResponse {
    #[prost(string, tag = "1")]
    pub(super) name: String,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::serve::external_scaler) struct ErrorResponse {
    #[prost(int32, tag = "1")]
    pub(super) error_code: i32,
    #[prost(string, tag = "2")]
    pub(in crate::serve::external_scaler) error_message: String,
}

/// `FileDescriptorSet`, with each file left as it is.
#[derive(Clone, PartialEq, Message)]
pub(super) struct FileSet {
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub(super) files: Vec<Vec<u8>>,
}

/// `FileDescriptorProto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct DescribedFile {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) package: String,
    #[prost(message, repeated, tag = "4")]
    pub(super) messages: Vec<DescribedMessage>,
    #[prost(message, repeated, tag = "6")]
    pub(super) services: Vec<DescribedService>,
}

/// `DescriptorProto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct DescribedMessage {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(message, repeated, tag = "3")]
    pub(super) nested: Vec<DescribedMessage>,
    #[prost(message, repeated, tag = "4")]
    pub(super) enums: Vec<DescribedName>,
}

/// `ServiceDescriptorProto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct DescribedService {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(message, repeated, tag = "2")]
    pub(super) methods: Vec<DescribedName>,
}

/// `MethodDescriptorProto` or `EnumDescriptorProto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct DescribedName {
    #[prost(string, tag = "1")]
    pub(super) name: String,
}
