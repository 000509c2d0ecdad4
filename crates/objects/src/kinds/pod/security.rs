//! Security contexts, of pods and of containers.

use crate::Tree;
use crate::kinds::field::{self, Path};
use crate::kinds::tree::{Fields, text};
use crate::kinds::{FieldError, names};

fn id(owner: &Tree, name: &str, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    if let Some(id) = owner.int(name) {
        errs.extend(names::id(id).iter().map(|m| field::invalid(&path.child(name), id, m)));
    }
}

/// Checks a pod's.
pub fn pod(spec: &Tree, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    let context = spec.at("securityContext");
    for name in ["fsGroup", "runAsUser", "runAsGroup"] {
        id(context, name, path, errs);
    }
    let groups = path.child("supplementalGroups");
    for (i, group) in context.list("supplementalGroups").iter().enumerate() {
        let group = group.as_i64().unwrap_or(0);
        errs.extend(names::id(group).iter().map(|m| field::invalid(&groups.index(i), group, m)));
    }
    sysctls(context, spec, &path.child("sysctls"), errs);
    if context.has("fsGroupChangePolicy") {
        supported(context, "fsGroupChangePolicy", &["Always", "OnRootMismatch"], path, errs);
    }
    seccomp(context.at("seccompProfile"), &path.child("seccompProfile"), errs);
    windows(context.at("windowsOptions"), &path.child("windowsOptions"), errs);
    app_armor(context.at("appArmorProfile"), &path.child("appArmorProfile"), errs);
    supported(context, "supplementalGroupsPolicy", &["Merge", "Strict"], path, errs);
    supported(context, "seLinuxChangePolicy", &["MountOption", "Recursive"], path, errs);
}

fn supported(owner: &Tree, name: &str, allowed: &[&str], path: &Path<'_>, errs: &mut Vec<FieldError>) {
    if owner.has(name) && !allowed.contains(&owner.text(name)) {
        errs.push(field::not_supported(&path.child(name), owner.text(name), allowed));
    }
}

/// Checks a container's.
pub fn container(context: &Tree, host_users: bool, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    if context.is_null() {
        return;
    }
    id(context, "runAsUser", path, errs);
    id(context, "runAsGroup", path, errs);
    if context.has("procMount") {
        let mount = context.text("procMount");
        supported(context, "procMount", &["Default", "Unmasked"], path, errs);
        if host_users && mount == "Unmasked" {
            errs.push(field::invalid(&path.child("procMount"), mount, "`hostUsers` must be false to use `Unmasked`"));
        }
    }
    seccomp(context.at("seccompProfile"), &path.child("seccompProfile"), errs);
    if context.at("allowPrivilegeEscalation") == &Tree::Bool(false) {
        if context.flag("privileged") {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errs.push(field::invalid(path, in_go(context), detail));
        }
        for _ in context.at("capabilities").list("add").iter().filter(|c| *c == "CAP_SYS_ADMIN") {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errs.push(field::invalid(path, in_go(context), detail));
        }
    }
    windows(context.at("windowsOptions"), &path.child("windowsOptions"), errs);
    app_armor(context.at("appArmorProfile"), &path.child("appArmorProfile"), errs);
}

/// A container's context as Kubernetes' internal type prints it.
struct InGo(String);
impl field::Shown for InGo {
    fn shown(&self) -> String {
        self.0.clone()
    }
}

fn in_go(context: &Tree) -> InGo {
    let renamed = |owner: &Tree, names: &[(&str, &str)]| -> String {
        if owner.is_null() {
            return "null".to_owned();
        }
        let parts: Vec<String> =
            names.iter().map(|(go, json)| format!("\"{go}\":{}", field::go_json(owner.at(json)))).collect();
        format!("{{{}}}", parts.join(","))
    };
    let capabilities = renamed(context.at("capabilities"), &[("Add", "add"), ("Drop", "drop")]);
    let linux = renamed(
        context.at("seLinuxOptions"),
        &[("User", "user"), ("Role", "role"), ("Type", "type"), ("Level", "level")],
    );
    let profile = [("Type", "type"), ("LocalhostProfile", "localhostProfile")];
    let windows = renamed(
        context.at("windowsOptions"),
        &[
            ("GMSACredentialSpecName", "gmsaCredentialSpecName"),
            ("GMSACredentialSpec", "gmsaCredentialSpec"),
            ("RunAsUserName", "runAsUserName"),
            ("HostProcess", "hostProcess"),
        ],
    );
    let plain = |name: &str| field::go_json(context.at(name));
    InGo(format!(
        "{{\"Capabilities\":{capabilities},\"Privileged\":{},\"SELinuxOptions\":{linux},\"WindowsOptions\":{windows},\"RunAsUser\":{},\"RunAsGroup\":{},\"RunAsNonRoot\":{},\"ReadOnlyRootFilesystem\":{},\"AllowPrivilegeEscalation\":{},\"ProcMount\":{},\"SeccompProfile\":{},\"AppArmorProfile\":{}}}",
        plain("privileged"),
        plain("runAsUser"),
        plain("runAsGroup"),
        plain("runAsNonRoot"),
        plain("readOnlyRootFilesystem"),
        plain("allowPrivilegeEscalation"),
        plain("procMount"),
        renamed(context.at("seccompProfile"), &profile),
        renamed(context.at("appArmorProfile"), &profile),
    ))
}

fn sysctls(context: &Tree, spec: &Tree, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    let list = context.list("sysctls");
    for (i, sysctl) in list.iter().enumerate() {
        let (item, name) = (path.index(i), sysctl.text("name"));
        let at = item.child("name");
        let before = list.iter().take(i).any(|s| s.text("name") == name);
        if name.is_empty() {
            errs.push(field::required(&at, ""));
        } else if name.len() > 253 || !is_sysctl(name) {
            let segment = "[a-z0-9]([-_a-z0-9]*[a-z0-9])?";
            let detail = format!("must have at most 253 characters and match regex ^({segment}[\\./])*{segment}$");
            errs.push(field::invalid(&at, name, &detail));
        } else if before {
            errs.push(field::duplicate(&at, name));
        }
        let dotted = name.replace('/', ".");
        let net = dotted.starts_with("net.");
        let ipc = dotted.starts_with("kernel.shm")
            || dotted.starts_with("kernel.msg")
            || dotted.starts_with("fs.mqueue.")
            || dotted == "kernel.sem";
        if spec.flag("hostNetwork") && net {
            errs.push(field::invalid(&at, name, "may not be specified when 'hostNetwork' is true"));
        } else if spec.flag("hostIPC") && ipc {
            errs.push(field::invalid(&at, name, "may not be specified when 'hostIPC' is true"));
        }
    }
}

fn is_sysctl(name: &str) -> bool {
    name.split(['.', '/']).all(|segment| {
        let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        segment.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b))
            && edge(segment.bytes().next())
            && edge(segment.bytes().last())
    })
}

fn seccomp(profile: &Tree, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    if profile.is_null() {
        return;
    }
    match profile.text("type") {
        "Localhost" | "RuntimeDefault" | "Unconfined" => {}
        "" => errs.push(field::required(&path.child("type"), "type is required when seccompProfile is set")),
        other => {
            errs.push(field::not_supported(&path.child("type"), other, &["Localhost", "RuntimeDefault", "Unconfined"]))
        }
    }
    let at = path.child("localhostProfile");
    let local = profile.at("localhostProfile");
    if profile.text("type") != "Localhost" {
        if !local.is_null() {
            let shown = InGo(format!(
                "{{\"Type\":{},\"LocalhostProfile\":{}}}",
                field::go_json(profile.at("type")),
                field::go_json(local)
            ));
            errs.push(field::invalid(&at, shown, "can only be set when seccomp type is Localhost"));
        }
    } else if local.is_null() {
        errs.push(field::required(&at, "must be set when seccomp type is Localhost"));
    } else {
        super::volumes::local_path(text(local), &at, errs);
    }
}

fn app_armor(profile: &Tree, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    if profile.is_null() {
        return;
    }
    let at = path.child("localhostProfile");
    let local = profile.at("localhostProfile");
    match profile.text("type") {
        "Localhost" => {
            let name = text(local);
            if name.trim() != name {
                errs.push(field::invalid(&at, name, "must not be padded with whitespace"));
            } else if name.is_empty() {
                errs.push(field::required(&at, "must be set when AppArmor type is Localhost"));
            }
            if name.len() > 4095 {
                errs.push(field::too_long(&at, 4095));
            }
        }
        "RuntimeDefault" | "Unconfined" => {
            if !local.is_null() {
                errs.push(field::invalid(&at, local, "can only be set when AppArmor type is Localhost"));
            }
        }
        "" => errs.push(field::required(&path.child("type"), "type is required when appArmorProfile is set")),
        other => {
            errs.push(field::not_supported(&path.child("type"), other, &["Localhost", "RuntimeDefault", "Unconfined"]))
        }
    }
}

fn windows(options: &Tree, path: &Path<'_>, errs: &mut Vec<FieldError>) {
    if options.is_null() {
        return;
    }
    if options.has("gmsaCredentialSpecName") {
        let at = path.child("gmsaCredentialSpecName");
        field::each(&at, options.text("gmsaCredentialSpecName"), names::subdomain, errs);
    }
    if options.has("gmsaCredentialSpec") {
        let at = path.child("gmsaCredentialSpec");
        let length = options.text("gmsaCredentialSpec").len();
        if length == 0 {
            errs.push(field::invalid(&at, "", "gmsaCredentialSpec cannot be an empty string"));
        } else if length > 64 * 1024 {
            errs.push(field::invalid(
                &at,
                options.at("gmsaCredentialSpec"),
                "gmsaCredentialSpec size must be under 64 KiB",
            ));
        }
    }
    if options.has("runAsUserName") && options.text("runAsUserName").is_empty() {
        errs.push(field::invalid(&path.child("runAsUserName"), "", "runAsUserName cannot be an empty string"));
    }
}
