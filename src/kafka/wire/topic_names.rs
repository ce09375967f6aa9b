//! Lists the names of all topics, for groups without members whose topics are set by a pattern.

use std::sync::Arc;

use kafka_protocol::messages::MetadataRequest;
use tokio::time::Instant;

use super::WireInner;
use super::address::Address;
use super::broker::Broker;
use super::connection::ResponseLimit;
use super::responses::{self, MetadataLimits};
use super::topics::is_user_topic;
use super::versions::ApiKey;
use crate::blocking_work::do_blocking;
use crate::kafka::codes;
use crate::kafka::topic_listing::{self, CachedListing, Listings, MAX_MATCH_TIME, MAX_NAMES};
use crate::model::kafka::fault::Fault;
use crate::model::kafka::sweep_plan::GroupPlan;
use crate::model::units::newtypes::TopicName;

/// Maximum size of a response: that of some hundred thousand partitions with three replicas, at about 42 bytes each.
const MAX_RESPONSE_BYTES: usize = 16 * 1024 * 1024;

impl WireInner {
    /// Lists the topics that match the patterns of the groups that have any. Topics that the login may not describe are
    /// not among them.
    pub(super) async fn list_topics(&self, groups: &[GroupPlan], deadline: Instant) -> Listings {
        let query = topic_listing::listing_query(groups);
        if query.is_empty() {
            return Listings::new();
        }
        let last = self.topic_names.last();
        if let Some(known) = last.as_ref().and_then(|last| last.listings_of(&query)) {
            return known.clone();
        }
        let names = match last.as_ref().and_then(CachedListing::fresh_names) {
            Some(names) => names,
            None => (
                std::time::Instant::now(),
                self.fetch_topic_names(deadline).await,
            ),
        };
        // Many names and patterns take a while, and the threads of the runtime serve requests.
        let listing =
            do_blocking(move || CachedListing::new(query, names, last, MAX_MATCH_TIME)).await;
        self.topic_names.insert(listing.clone());
        listing.into_listings()
    }

    async fn fetch_topic_names(&self, deadline: Instant) -> Result<Arc<[TopicName]>, Fault> {
        let send = |broker: Arc<Broker>, address: Address| async move {
            let version = broker.versions(deadline).await?;
            let version = version.highest_common(ApiKey::Metadata)?;
            let request = match version {
                0 => MetadataRequest::default().with_topics(Some(Vec::new())),
                1..=3 => MetadataRequest::default().with_topics(None),
                _ => MetadataRequest::default()
                    .with_topics(None)
                    .with_allow_auto_topic_creation(false),
            };
            let body = broker
                .send_bounded_request(
                    ApiKey::Metadata,
                    version,
                    &request,
                    ResponseLimit::Budget(MAX_RESPONSE_BYTES),
                    deadline,
                )
                .await?;
            // Of each topic, only the name is kept.
            let limits = MetadataLimits {
                is_wanted: &is_user_topic,
                topics: MAX_NAMES,
                brokers: 0,
                partitions: 0,
            };
            let found = responses::metadata(&body, version, limits)
                .map_err(|error| self.cluster.report_malformed(&address, &error))?;
            let checked = self.cluster.check_metadata_code(found.code, &address);
            checked.map_err(|_| Fault::Unreachable)?;
            if found.topics.len() >= MAX_NAMES {
                return Err(Fault::OverBudget);
            }
            let exists = |code| matches!(code, codes::NONE | codes::LEADER_NOT_AVAILABLE);
            let topics = found.topics.iter().filter(|topic| exists(topic.code));
            let names = topics.filter_map(|topic| Some(TopicName::from(topic.name?)));
            Ok(names.collect())
        };
        self.cluster.request_from_any(deadline, send).await
    }
}
