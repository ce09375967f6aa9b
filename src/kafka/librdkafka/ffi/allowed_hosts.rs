//! Has a client of librdkafka connect to allowed hosts only.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;

use rdkafka::bindings as rd;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};

/// Decides which hosts a client may connect to.
pub(in crate::kafka::librdkafka) trait HostFilter {
    /// Whether to connect to a host; called by librdkafka's threads before each look-up of its addresses.
    fn allows_host(&self, host: &str) -> bool;
}

/// The signature of `getaddrinfo`, with the context of the client.
type ResolveCallback = unsafe extern "C" fn(
    node: *const c_char,
    service: *const c_char,
    hints: *const libc::addrinfo,
    found: *mut *mut libc::addrinfo,
    context: *mut c_void,
) -> c_int;

unsafe extern "C" {
    // The generated bindings leave it out.
    fn rd_kafka_conf_set_resolve_cb(conf: *mut rd::rd_kafka_conf_t, callback: ResolveCallback);
}

/// Filters the hosts of a client that has no `bootstrap.servers`, and then adds these; whether there is one at least.
///
/// The crate has no hook between the configuration of a client and its start. So the configuration of the running
/// client is changed: a client without servers looks up no host, and the one lock that adding servers takes orders the
/// change before every look-up.
pub(in crate::kafka::librdkafka) fn connect_to_allowed_hosts<C>(
    consumer: &BaseConsumer<C>,
    bootstrap: &CStr,
) -> bool
where
    C: ConsumerContext + HostFilter,
{
    let client = consumer.client().native_ptr();
    // SAFETY: the handle is valid as long as the consumer that is borrowed here. Its configuration is a field of it, not
    // a constant, and is read by no other thread yet, see above. The crate has set the opaque value of the configuration
    // to the context, which outlives the handle.
    unsafe {
        rd_kafka_conf_set_resolve_cb(rd::rd_kafka_conf(client).cast_mut(), resolve::<C>);
        rd::rd_kafka_brokers_add(client, bootstrap.as_ptr()) > 0
    }
}

/// Looks up an allowed host; frees the result of an earlier look-up if `node`, `service` and `hints` are null.
///
/// # Safety
/// Called by librdkafka with the arguments of `getaddrinfo`, and a pointer to the context of the client.
unsafe extern "C" fn resolve<C: HostFilter>(
    node: *const c_char,
    service: *const c_char,
    hints: *const libc::addrinfo,
    found: *mut *mut libc::addrinfo,
    context: *mut c_void,
) -> c_int {
    // SAFETY: promised by the caller. `found` points to a result of this function, if anything is to be freed, and the
    // name is a string that ends in 0.
    unsafe {
        if node.is_null() && service.is_null() && hints.is_null() {
            libc::freeaddrinfo(*found);
            return 0;
        }
        let is_allowed = !node.is_null()
            && CStr::from_ptr(node)
                .to_str()
                .is_ok_and(|host| (*context.cast_const().cast::<C>()).allows_host(host));
        if !is_allowed {
            *found = ptr::null_mut();
            return libc::EAI_FAIL;
        }
        libc::getaddrinfo(node, service, hints, found)
    }
}
