//! IP addresses and blocks in fields.

use std::net::IpAddr;
use std::str::FromStr as _;

/// An address as older fields take it: no leading zeros, no IPv4 inside IPv6.
pub fn ip(s: &str) -> Vec<String> {
    match IpAddr::from_str(s) {
        Ok(IpAddr::V6(six)) if six.to_ipv4_mapped().is_some() => {
            vec!["must not be an IPv4-mapped IPv6 address".to_owned()]
        }
        Ok(_) => Vec::new(),
        Err(_) if without_zeros(s).is_some() => vec!["must not have leading 0s".to_owned()],
        Err(_) => vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()],
    }
}

/// An address in its one canonical form, as newer fields want it.
pub fn canonical_ip(s: &str) -> Vec<String> {
    let wrong = ip(s);
    match IpAddr::from_str(s) {
        Ok(address) if wrong.is_empty() && address.to_string() != s => {
            vec![format!("must be in canonical form (\"{address}\")")]
        }
        _ => wrong,
    }
}

/// A block in CIDR form.
pub fn cidr(s: &str) -> Vec<String> {
    let invalid = || vec!["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)".to_owned()];
    let Some((address, bits)) = s.split_once('/') else { return invalid() };
    let Ok(length) = bits.parse::<u32>() else { return invalid() };
    let parsed = IpAddr::from_str(address).ok().or_else(|| without_zeros(address));
    let Some(parsed) = parsed else { return invalid() };
    if length > if parsed.is_ipv4() { 32 } else { 128 } || bits.starts_with('+') {
        return invalid();
    }
    if IpAddr::from_str(address).is_err() || (bits.len() > 1 && bits.starts_with('0')) {
        return vec!["must not have leading 0s in IP or prefix length".to_owned()];
    }
    let beyond = match parsed {
        IpAddr::V6(six) if six.to_ipv4_mapped().is_some() => {
            return vec!["must not have an IPv4-mapped IPv6 address".to_owned()];
        }
        IpAddr::V4(four) => four.to_bits() & u32::MAX.checked_shr(length).unwrap_or(0) != 0,
        IpAddr::V6(six) => six.to_bits() & u128::MAX.checked_shr(length).unwrap_or(0) != 0,
    };
    if beyond { vec!["must not have bits set beyond the prefix length".to_owned()] } else { Vec::new() }
}

/// Whether an address is one of IPv6.
pub fn is_v6(s: &str) -> bool {
    s.contains(':')
}

/// An IPv4 address whose parts may begin with zeros, as old versions took it.
fn without_zeros(s: &str) -> Option<IpAddr> {
    let part = |p: &str| {
        let short = p.trim_start_matches('0');
        if p.is_empty() { None } else { Some(if short.is_empty() { "0" } else { short }.to_owned()) }
    };
    let parts: Option<Vec<String>> = s.split('.').map(part).collect();
    IpAddr::from_str(&parts?.join(".")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_blocks_are_checked_as_kubernetes_checks_them() {
        for (text, wrong) in [
            ("10.0.0.1", ""),
            ("::1", ""),
            ("010.0.0.1", "must not have leading 0s"),
            ("::ffff:1.2.3.4", "must not be an IPv4-mapped IPv6 address"),
            ("1.2.3", "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"),
            ("", "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"),
        ] {
            assert_eq!(ip(text).join(";"), wrong, "{text}");
        }
        assert_eq!(canonical_ip("2001:DB8::1"), ["must be in canonical form (\"2001:db8::1\")"]);
        for (text, wrong) in [
            ("10.0.0.0/8", ""),
            ("fd00::/8", ""),
            ("10.0.0.1/8", "must not have bits set beyond the prefix length"),
            ("10.0.0.0/08", "must not have leading 0s in IP or prefix length"),
            ("10.0.0.0/33", "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"),
            ("10.0.0.0", "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"),
        ] {
            assert_eq!(cidr(text).join(";"), wrong, "{text}");
        }
    }
}
