//! Adds partitions to a topic, for `lagwise topics grow`.

use std::collections::BTreeSet;
use std::time::Instant;

use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::{CreatePartitionsRequest, DescribeConfigsRequest};
use kafka_protocol::protocol::StrBytes;

use super::WireInner;
use super::address::Address;
use super::connection::ResponseLimit;
use super::responses::{self, TopicResult};
use super::versions::ApiKey;
use crate::kafka::codes;
use crate::kafka::topic_growth::GrowError;
use crate::model::diagnostics::topic_growth::TopicToGrow;
use crate::model::kafka::fault::Fault;
use crate::model::units::newtypes::TopicName;
use crate::model::units::untrusted_text::Printable;

/// Resource type of topics in `DescribeConfigs`.
const TOPIC: i8 = 2;

/// Maximum size of a response about one topic.
const MAX_RESPONSE: ResponseLimit = ResponseLimit::Expected(1024 * 1024);

impl WireInner {
    /// Reads what growing a topic depends on.
    pub(super) async fn topic_to_grow(
        &self,
        topic: &TopicName,
        deadline: Instant,
    ) -> Result<TopicToGrow, Fault> {
        let wanted = BTreeSet::from([topic.clone()]);
        let metadata = self
            .cluster
            .fetch_metadata(&wanted, deadline.into())
            .await?;
        let found = metadata.topic(topic)?;
        // Without the right to see it, it is unknown.
        let policy = self.cleanup_policy(topic, deadline).await.ok().flatten();
        Ok(TopicToGrow {
            topic: topic.to_string(),
            partitions: u32::try_from(found.leaders.len()).unwrap_or(u32::MAX),
            is_compacted: policy.map(|policy| policy.contains("compact")),
        })
    }

    async fn cleanup_policy(
        &self,
        topic: &TopicName,
        deadline: Instant,
    ) -> Result<Option<String>, Fault> {
        let key = StrBytes::from_static_str("cleanup.policy");
        let resource = DescribeConfigsResource::default()
            .with_resource_type(TOPIC)
            .with_resource_name(StrBytes::from_string(topic.as_str().to_owned()))
            .with_configuration_keys(Some(vec![key]));
        let request = &DescribeConfigsRequest::default().with_resources(vec![resource]);
        let deadline = deadline.into();
        let send = |broker: std::sync::Arc<super::broker::Broker>, address: Address| async move {
            let api = ApiKey::DescribeConfigs;
            let version = broker.versions(deadline).await?.highest_common(api)?;
            let answer = broker
                .send_bounded_request(api, version, request, MAX_RESPONSE, deadline)
                .await?;
            responses::topic_config(&answer, version)
                .map_err(|error| self.cluster.report_malformed(&address, &error))
        };
        let (code, value) = self.cluster.request_from_any(deadline, send).await?;
        match code {
            codes::NONE => Ok(value),
            code => Err(codes::fault_of(i32::from(code))),
        }
    }

    /// Adds partitions until the topic has `total`, or only has the broker check that it would.
    pub(super) async fn grow_topic(
        &self,
        topic: &TopicName,
        total: u32,
        is_dry_run: bool,
        deadline: Instant,
    ) -> Result<(), GrowError> {
        let name = StrBytes::from_string(topic.as_str().to_owned());
        let wanted = CreatePartitionsTopic::default()
            .with_name(name.into())
            .with_count(i32::try_from(total).unwrap_or(i32::MAX))
            .with_assignments(None);
        let left = deadline.saturating_duration_since(Instant::now());
        let request = CreatePartitionsRequest::default()
            .with_topics(vec![wanted])
            .with_timeout_ms(i32::try_from(left.as_millis()).unwrap_or(i32::MAX))
            .with_validate_only(is_dry_run);
        // In KRaft mode every broker forwards it. With ZooKeeper only the controller takes it, so try each.
        let mut last = GrowError::Fault(Fault::NoAnswer);
        for address in self.cluster.nodes() {
            match self.request_growth(&address, &request, deadline).await {
                Ok(result) if result.code == codes::NONE => return Ok(()),
                Ok(result) if result.code == codes::NOT_CONTROLLER => {
                    last = refusal(&result);
                }
                Ok(result) => return Err(refusal(&result)),
                // The change may have been made: another request would then report it as an error.
                Err(fault) => return Err(GrowError::Fault(fault)),
            }
        }
        Err(last)
    }

    async fn request_growth(
        &self,
        address: &Address,
        request: &CreatePartitionsRequest,
        deadline: Instant,
    ) -> Result<TopicResult, Fault> {
        let broker = self.cluster.broker(address);
        let deadline = deadline.into();
        let api = ApiKey::CreatePartitions;
        let version = broker.versions(deadline).await?.highest_common(api)?;
        let answer = broker
            .send_bounded_request(api, version, request, MAX_RESPONSE, deadline)
            .await?;
        responses::create_partitions(&answer, version)
            .map_err(|error| self.cluster.report_malformed(address, &error))
    }
}

fn refusal(result: &TopicResult) -> GrowError {
    let fault = codes::fault_of(i32::from(result.code));
    GrowError::Refused {
        code: result.code,
        message: match &result.message {
            Some(message) => Printable::message(message).to_string(),
            None => fault.to_string(),
        },
    }
}
