//! The network of an address, for limits that a caller with many addresses must not evade.

use std::net::{IpAddr, Ipv6Addr};

/// The network whose addresses may all belong to one client: the /64 prefix of an IPv6 address, or an IPv4 address
/// itself.
///
/// Limits of a network come on top of those of its addresses and do not replace them: in many Kubernetes clusters all
/// pods of a node, or of a zone, are in one such network.
pub(in crate::serve) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv6_is_counted_by_64_bit_network_and_ipv4_by_address() {
        for (address, expected) in [
            ("10.0.0.1", "10.0.0.1"),
            ("::ffff:10.0.0.1", "10.0.0.1"),
            ("fd00:1:2:3:4:5:6:7", "fd00:1:2:3::"),
            ("fd00:1:2:3::", "fd00:1:2:3::"),
            ("fd00:1:2:4::1", "fd00:1:2:4::"),
            ("::1", "::"),
        ] {
            let found = network(address.parse().unwrap());
            assert_eq!(found.to_string(), expected, "{address}");
        }
    }
}
