//! The only unsafe code: calls of librdkafka's C API that the `rdkafka` crate does not wrap.
//!
//! `rd_kafka_ListOffsets` returns a result per partition with one request per leader, where the
//! wrapped calls are all-or-nothing or cost two requests per partition;
//! `rd_kafka_ListConsumerGroups` returns a result per broker.
//!
//! Error codes are read as plain integers: a broker may send a code that the generated Rust enum
//! lacks, and such an enum value would be undefined behaviour.
#![allow(unsafe_code)]

mod allowed_hosts;

use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::{self, NonNull};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::{TopicPartitionList, bindings as rd};

pub(super) use self::allowed_hosts::{HostFilter, connect_to_allowed_hosts};
use crate::model::units::newtypes::Partition;

/// librdkafka's code for a timeout (`RD_KAFKA_RESP_ERR__TIMED_OUT`).
pub(super) const TIMED_OUT: i32 = -185;

/// Which offset of a log to read; the values are the protocol's (`ListOffsets`, KIP-79).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum OffsetSpec {
    /// The log start offset.
    Earliest,
    /// The high watermark.
    Latest,
    /// The last stable offset.
    Stable,
    /// The first record at or after this time, in milliseconds since 1970.
    At(i64),
}

impl OffsetSpec {
    fn timestamp(self) -> i64 {
        match self {
            OffsetSpec::Earliest => -2,
            OffsetSpec::Latest | OffsetSpec::Stable => -1,
            OffsetSpec::At(millis) => millis,
        }
    }
}

/// Partitions to request together, and which offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PartitionChunk<'a> {
    pub(super) spec: OffsetSpec,
    pub(super) partitions: Vec<(&'a str, Partition)>,
}

/// An offset that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FoundOffset {
    pub(super) offset: i64,
    /// Timestamp of the record at the offset, in milliseconds since 1970; -1 if unknown.
    pub(super) timestamp: i64,
}

/// An entry of a topic-partition list; `code` is 0 for no error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ListEntry<'a> {
    pub(super) topic: &'a str,
    pub(super) partition: Partition,
    pub(super) offset: i64,
    pub(super) code: i32,
}

mod raw {
    use super::{c_int, rd};

    // The generated declaration returns a Rust enum, see above.
    #[allow(clashing_extern_declarations)]
    unsafe extern "C" {
        pub(super) fn rd_kafka_event_error(event: *mut rd::rd_kafka_event_t) -> c_int;
    }
}

/// A queue for the results of one call.
struct EventQueue(NonNull<rd::rd_kafka_queue_t>);

impl EventQueue {
    fn new<C: ConsumerContext>(consumer: &BaseConsumer<C>) -> Option<Self> {
        // SAFETY: the handle is valid as long as the consumer that is borrowed here.
        NonNull::new(unsafe { rd::rd_kafka_queue_new(consumer.client().native_ptr()) }).map(Self)
    }

    /// Waits for the next event; `None` at the deadline.
    fn next(&self, deadline: Instant) -> Option<QueueEvent> {
        let left = milliseconds(deadline.saturating_duration_since(Instant::now()));
        // SAFETY: the queue is valid until dropped; the event is owned by the caller.
        NonNull::new(unsafe { rd::rd_kafka_queue_poll(self.0.as_ptr(), left) }).map(QueueEvent)
    }
}

impl Drop for EventQueue {
    fn drop(&mut self) {
        // SAFETY: made by rd_kafka_queue_new and destroyed once. Answers that come later hold
        // their own reference and are discarded by librdkafka.
        unsafe { rd::rd_kafka_queue_destroy(self.0.as_ptr()) }
    }
}

/// An event from a queue.
struct QueueEvent(NonNull<rd::rd_kafka_event_t>);

impl QueueEvent {
    /// The error code of the request as a whole; 0 for none.
    fn code(&self) -> i32 {
        // SAFETY: the event is valid until dropped.
        unsafe { raw::rd_kafka_event_error(self.0.as_ptr()) }
    }

    fn opaque(&self) -> usize {
        // SAFETY: as above. The pointer is a number that was set by `AdminOptions`, never dereferenced.
        unsafe { rd::rd_kafka_event_opaque(self.0.as_ptr()) }.addr()
    }
}

impl Drop for QueueEvent {
    fn drop(&mut self) {
        // SAFETY: taken from a queue, destroyed once; nothing borrowed from it outlives it.
        unsafe { rd::rd_kafka_event_destroy(self.0.as_ptr()) }
    }
}

/// Options of one admin request.
struct AdminOptions(NonNull<rd::rd_kafka_AdminOptions_t>);

impl AdminOptions {
    fn new<C: ConsumerContext>(
        consumer: &BaseConsumer<C>,
        operation: rd::rd_kafka_admin_op_t,
        timeout: Duration,
        opaque: usize,
    ) -> Option<Self> {
        let mut reason: [c_char; 128] = [0; 128];
        // SAFETY: the handle is valid as long as the consumer that is borrowed here.
        let made =
            unsafe { rd::rd_kafka_AdminOptions_new(consumer.client().native_ptr(), operation) };
        let options = Self(NonNull::new(made)?);
        // SAFETY: the options are valid, the buffer is as long as said. A timeout out of range is
        // refused and leaves the default; the deadline of the queue holds all the same.
        unsafe {
            rd::rd_kafka_AdminOptions_set_request_timeout(
                options.0.as_ptr(),
                milliseconds(timeout),
                reason.as_mut_ptr(),
                reason.len(),
            );
            rd::rd_kafka_AdminOptions_set_opaque(
                options.0.as_ptr(),
                ptr::without_provenance_mut::<c_void>(opaque),
            );
        }
        Some(options)
    }
}

impl AdminOptions {
    /// Requests the last stable offset instead of the high watermark.
    fn read_committed(&self) {
        // SAFETY: the options are valid. The error that may be returned, null for none, is destroyed
        // by the call that takes either.
        unsafe {
            rd::rd_kafka_error_destroy(rd::rd_kafka_AdminOptions_set_isolation_level(
                self.0.as_ptr(),
                rd::rd_kafka_IsolationLevel_t::RD_KAFKA_ISOLATION_LEVEL_READ_COMMITTED,
            ));
        }
    }
}

impl Drop for AdminOptions {
    fn drop(&mut self) {
        // SAFETY: made by rd_kafka_AdminOptions_new, destroyed once; requests copy them.
        unsafe { rd::rd_kafka_AdminOptions_destroy(self.0.as_ptr()) }
    }
}

/// Milliseconds, at least 1: to librdkafka 0 means "the default" in some calls and "do not wait" in
/// others.
fn milliseconds(duration: Duration) -> c_int {
    c_int::try_from(duration.as_millis())
        .unwrap_or(c_int::MAX)
        .max(1)
}

/// Reads an offset of each partition, all chunks in parallel.
///
/// A chunk should hold partitions of one leader, so that a broker that is down costs only its own
/// partitions, and at most a few hundred, because librdkafka's work is quadratic in a chunk's
/// length. The result has the shape of `chunks`; a partition without an answer has [`TIMED_OUT`].
/// Blocks until the deadline at most; a broker may take `timeout` before librdkafka considers its
/// connection dead.
pub(super) fn list_offsets<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    chunks: &[PartitionChunk<'_>],
    deadline: Instant,
    timeout: Duration,
) -> Vec<Vec<Result<FoundOffset, i32>>> {
    let mut results: Vec<Vec<_>> = chunks
        .iter()
        .map(|chunk| vec![Err(TIMED_OUT); chunk.partitions.len()])
        .collect();
    let Some(queue) = EventQueue::new(consumer) else {
        return results;
    };
    let mut waiting: usize = 0;
    for (i, chunk) in chunks.iter().enumerate() {
        let operation = rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTOFFSETS;
        let Some(options) = AdminOptions::new(consumer, operation, timeout, i) else {
            continue;
        };
        if chunk.spec == OffsetSpec::Stable {
            options.read_committed();
        }
        let mut list = TopicPartitionList::with_capacity(chunk.partitions.len());
        let timestamp = rdkafka::Offset::from_raw(chunk.spec.timestamp());
        for (topic, partition) in &chunk.partitions {
            // The list's offset field carries the timestamp; all of ours are valid there.
            let _ = list.add_partition_offset(topic, *partition, timestamp);
        }
        // SAFETY: handle, list, options and queue are valid during the call, which copies what it
        // keeps of the list and of the options.
        unsafe {
            rd::rd_kafka_ListOffsets(
                consumer.client().native_ptr(),
                list.ptr(),
                options.0.as_ptr(),
                queue.0.as_ptr(),
            );
        }
        waiting = waiting.saturating_add(1);
    }
    while waiting > 0 {
        let Some(event) = queue.next(deadline) else {
            break;
        };
        waiting = waiting.saturating_sub(1);
        let i = event.opaque();
        if let (Some(chunk), Some(result)) = (chunks.get(i), results.get_mut(i)) {
            offsets_of(&event, &chunk.partitions, result);
        }
    }
    results
}

fn offsets_of(
    event: &QueueEvent,
    chunk: &[(&str, Partition)],
    result: &mut [Result<FoundOffset, i32>],
) {
    let code = event.code();
    if code != 0 {
        result.fill(Err(code));
        return;
    }
    let index: HashMap<(&str, Partition), usize> =
        chunk.iter().enumerate().map(|(i, key)| (*key, i)).collect();
    let mut count = 0;
    // SAFETY: the event is valid; for an event of another type the result is null.
    let infos = unsafe {
        let answer = rd::rd_kafka_event_ListOffsets_result(event.0.as_ptr());
        if answer.is_null() {
            return;
        }
        rd::rd_kafka_ListOffsets_result_infos(answer, &mut count)
    };
    for i in 0..count {
        // SAFETY: `infos` holds `count` valid pointers, owned by the event.
        let (entry, timestamp) = unsafe {
            let info = *infos.add(i);
            let entry = entry(rd::rd_kafka_ListOffsetsResultInfo_topic_partition(info));
            (entry, rd::rd_kafka_ListOffsetsResultInfo_timestamp(info))
        };
        let slot = index
            .get(&(entry.topic, entry.partition))
            .and_then(|at| result.get_mut(*at));
        if let Some(slot) = slot {
            *slot = if entry.code == 0 {
                Ok(FoundOffset {
                    offset: entry.offset,
                    timestamp,
                })
            } else {
                Err(entry.code)
            };
        }
    }
}

/// Reads one entry.
///
/// # Safety
/// `at` points to a valid entry that lives unchanged for `'a`.
unsafe fn entry<'a>(at: *const rd::rd_kafka_topic_partition_t) -> ListEntry<'a> {
    // SAFETY: promised by the caller. The code is read as an integer, since it may be one that the
    // enum lacks; topic names are ASCII by Kafka's own rule, and anything else reads as "".
    unsafe {
        ListEntry {
            topic: CStr::from_ptr((*at).topic).to_str().unwrap_or(""),
            partition: (*at).partition,
            offset: (*at).offset,
            code: ptr::addr_of!((*at).err).cast::<i32>().read(),
        }
    }
}

/// The entries of a list, in order.
pub(super) fn entries(list: &TopicPartitionList) -> impl Iterator<Item = ListEntry<'_>> {
    let at = list.ptr();
    (0..list.count()).map(move |i| {
        // SAFETY: a list of the crate is never null and holds `count` entries, which nothing
        // changes while it is borrowed.
        unsafe { entry((*at).elems.add(i)) }
    })
}

/// Lists the names of all groups, and the error code of each broker that did not list its own.
///
/// Blocks until the deadline at most.
pub(super) fn list_groups<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    deadline: Instant,
) -> (Vec<String>, Vec<i32>) {
    let timeout = deadline.saturating_duration_since(Instant::now());
    let operation = rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPS;
    let (Some(queue), Some(options)) = (
        EventQueue::new(consumer),
        AdminOptions::new(consumer, operation, timeout, 0),
    ) else {
        return (Vec::new(), vec![TIMED_OUT]);
    };
    // SAFETY: handle, options and queue are valid during the call, which copies the options.
    unsafe {
        rd::rd_kafka_ListConsumerGroups(
            consumer.client().native_ptr(),
            options.0.as_ptr(),
            queue.0.as_ptr(),
        );
    }
    let Some(event) = queue.next(deadline) else {
        return (Vec::new(), vec![TIMED_OUT]);
    };
    if event.code() != 0 {
        return (Vec::new(), vec![event.code()]);
    }
    let (mut count, mut faults) = (0, 0);
    // SAFETY: the event is valid, and outlives everything that is read from its result below:
    // two arrays of as many valid pointers as their counts say. Names and codes are copied out.
    unsafe {
        let answer = rd::rd_kafka_event_ListConsumerGroups_result(event.0.as_ptr());
        if answer.is_null() {
            return (Vec::new(), vec![TIMED_OUT]);
        }
        let groups = rd::rd_kafka_ListConsumerGroups_result_valid(answer, &mut count);
        let names = (0..count).map(|i| {
            let name = rd::rd_kafka_ConsumerGroupListing_group_id(*groups.add(i));
            CStr::from_ptr(name).to_string_lossy().into_owned()
        });
        let names = names.collect();
        let errors = rd::rd_kafka_ListConsumerGroups_result_errors(answer, &mut faults);
        let codes = (0..faults).map(|i| raw_error_code(*errors.add(i)));
        (names, codes.collect())
    }
}

/// The code of an error object: librdkafka's own or a broker's.
///
/// # Safety
/// `error` is a valid error object.
unsafe fn raw_error_code(error: *const rd::rd_kafka_error_t) -> i32 {
    unsafe extern "C" {
        // The generated declaration returns a Rust enum, see the top of the file.
        #[allow(clashing_extern_declarations)]
        fn rd_kafka_error_code(error: *const rd::rd_kafka_error_t) -> c_int;
    }
    // SAFETY: promised by the caller.
    unsafe { rd_kafka_error_code(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_reads_codes_and_offsets_as_they_are() {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset("t", 3, rdkafka::Offset::Offset(7))
            .unwrap();
        list.add_partition("u", 0);
        let found: Vec<_> = entries(&list).collect();
        assert_eq!(
            found[0],
            ListEntry {
                topic: "t",
                partition: 3,
                offset: 7,
                code: 0
            }
        );
        assert_eq!(
            found[1],
            ListEntry {
                topic: "u",
                partition: 0,
                offset: -1001,
                code: 0
            }
        );
    }
}
