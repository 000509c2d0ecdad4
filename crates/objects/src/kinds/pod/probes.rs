//! Probes and lifecycle hooks.

use crate::Tree;
use crate::kinds::field::{self, Path};
use crate::kinds::tree::{Fields, text};
use crate::kinds::{FieldError, names};

/// Checks the three probes of a container.
pub fn probes(container: &Tree, grace: Option<i64>, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let probe = container.at(name);
        if probe.is_null() {
            continue;
        }
        let at = path.child(name);
        handler(probe, &["exec", "httpGet", "tcpSocket", "grpc"], grace, &at, errs);
        for field in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"]
        {
            field::not_negative(&at.child(field), probe.int(field), errs);
        }
        let own_grace = probe.int("terminationGracePeriodSeconds");
        let at_grace = at.child("terminationGracePeriodSeconds");
        if let Some(seconds) = own_grace.filter(|s| *s <= 0) {
            errs.push(field::invalid(&at_grace, seconds, "must be greater than 0"));
        }
        let threshold = probe.int("successThreshold").unwrap_or(0);
        if name == "readinessProbe" {
            if let Some(seconds) = own_grace {
                errs.push(field::invalid(&at_grace, seconds, "must not be set for readinessProbes"));
            }
        } else if threshold != 1 {
            errs.push(field::invalid(&at.child("successThreshold"), threshold, "must be 1"));
        }
    }
}

/// Checks `lifecycle`.
pub fn lifecycle(lifecycle: &Tree, grace: Option<i64>, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    for name in ["postStart", "preStop"] {
        if lifecycle.has(name) {
            let kinds = ["exec", "httpGet", "tcpSocket", "sleep"];
            handler(lifecycle.at(name), &kinds, grace, &path.child(name), errs);
        }
    }
}

fn handler(handler: &Tree, kinds: &[&str], grace: Option<i64>, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    let mut count = 0;
    for kind in kinds.iter().filter(|k| handler.has(k)) {
        let (action, at) = (handler.at(kind), path.child(kind));
        count += 1;
        if count > 1 {
            errs.push(field::forbidden(&at, "may not specify more than 1 handler type"));
            continue;
        }
        match *kind {
            "exec" if action.list("command").is_empty() => errs.push(field::required(&at.child("command"), "")),
            "httpGet" => http_get(action, &at, errs),
            "tcpSocket" => port(action.at("port"), &at.child("port"), errs),
            "grpc" => {
                let number = action.int("port").unwrap_or(0);
                errs.extend(names::port(number).iter().map(|m| field::invalid(&at.child("port"), number, m)));
            }
            "sleep" => {
                let seconds = action.int("seconds").unwrap_or(0);
                if let Some(grace) = grace.filter(|g| seconds < 0 || seconds > *g) {
                    let detail = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
                    errs.push(field::invalid(&at, seconds, &detail));
                }
            }
            _ => {}
        }
    }
    if count == 0 {
        errs.push(field::required(path, "must specify a handler type"));
    }
}

fn http_get(http: &Tree, at: &Path<'_>, errs: &mut Vec<FieldError>) {
    if http.text("path").is_empty() {
        errs.push(field::required(&at.child("path"), ""));
    }
    port(http.at("port"), &at.child("port"), errs);
    let scheme = http.text("scheme");
    if scheme != "HTTP" && scheme != "HTTPS" {
        errs.push(field::not_supported(&at.child("scheme"), scheme, &["HTTP", "HTTPS"]));
    }
    for header in http.list("httpHeaders") {
        field::each(&at.child("httpHeaders"), header.text("name"), names::http_header, errs);
    }
}

/// Checks a port given as number or name.
pub fn port(port: &Tree, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    if port.is_string() {
        field::each(path, text(port), names::port_name, errs);
    } else {
        let number = port.as_i64().unwrap_or(0);
        errs.extend(names::port(number).iter().map(|m| field::invalid(path, number, m)));
    }
}
