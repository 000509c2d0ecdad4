//! A container's environment, in the kubelet's order of precedence: services, then `envFrom`, then `env`,
//! the last one standing.

use super::downward;
use super::expand::expand;
use super::facts::NodeFacts;
use objects::Tree;
use objects::kinds::tree::Fields;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// ConfigMaps and Secrets of the pod's namespace, as far as they have been read.
pub(super) trait Read {
    /// The object; `None` if there is none.
    ///
    /// # Errors
    /// It could not be read, in the words of whoever refused.
    fn config_map(&self, name: &str) -> Result<Option<&Tree>, String>;
    /// As `config_map`.
    ///
    /// # Errors
    /// As `config_map`.
    fn secret(&self, name: &str) -> Result<Option<&Tree>, String>;
}

/// What an environment is made of.
pub(super) struct Env<'a> {
    pub(super) facts: &'a NodeFacts,
    pub(super) pod: &'a Tree,
    pub(super) container: &'a Tree,
    /// The pod's addresses.
    pub(super) addresses: &'a [IpAddr],
    pub(super) read: &'a dyn Read,
    /// Services of the pod's namespace.
    pub(super) services: &'a [Tree],
}

/// Names of the ConfigMaps and Secrets a container's environment refers to.
pub(super) fn references(container: &Tree) -> (Vec<&str>, Vec<&str>) {
    let from = |r: &'static str, k: &'static str| {
        let whole = container.list("envFrom").iter().map(move |f| f.at(r).text("name"));
        let keys = container.list("env").iter().map(move |e| e.at("valueFrom").at(k).text("name"));
        whole.chain(keys).filter(|n| !n.is_empty()).collect()
    };
    (from("configMapRef", "configMapKeyRef"), from("secretRef", "secretKeyRef"))
}

impl Env<'_> {
    /// The variables, each name once: those of `envFrom` by name, those of `env` as they are written, then
    /// those of services.
    ///
    /// # Errors
    /// Why the container cannot be made, in the kubelet's words.
    pub(super) fn variables(&self) -> Result<Vec<(String, String)>, String> {
        let services = self.service_variables();
        let mut from = self.whole_objects()?;
        let mut own: Vec<(String, String)> = Vec::new();
        for variable in self.container.list("env") {
            let name = variable.text("name");
            let known = |n: &str| {
                let declared = own.iter().find(|(k, _)| k == n).map(|(_, v)| v);
                declared.or_else(|| from.get(n)).or_else(|| services.get(n)).cloned()
            };
            let value = match variable.text("value") {
                "" if variable.has("valueFrom") => match self.value_from(variable.at("valueFrom"))? {
                    Some(value) => value,
                    None => continue,
                },
                text => expand(text, known),
            };
            from.remove(name);
            own.retain(|(k, _)| k != name);
            own.push((name.to_owned(), value));
        }
        let mut all: Vec<(String, String)> = from.into_iter().chain(own).collect();
        let more: Vec<_> = services.into_iter().filter(|(k, _)| !all.iter().any(|(n, _)| n == k)).collect();
        all.extend(more);
        Ok(all)
    }

    fn whole_objects(&self) -> Result<BTreeMap<String, String>, String> {
        let mut all = BTreeMap::new();
        for source in self.container.list("envFrom") {
            let prefix = source.text("prefix");
            let (object, reference, secret) = match (source.at("configMapRef"), source.at("secretRef")) {
                (Tree::Null, Tree::Null) => continue,
                (Tree::Null, r) => (self.read.secret(r.text("name"))?, r, true),
                (r, _) => (self.read.config_map(r.text("name"))?, r, false),
            };
            let Some(object) = object else {
                if reference.flag("optional") {
                    continue;
                }
                return Err(missing(secret, reference.text("name")));
            };
            for (key, value) in object.entries("data") {
                all.insert(format!("{prefix}{key}"), text_of(secret, value));
            }
        }
        Ok(all)
    }

    /// The value of a `valueFrom`; `None` if it is optional and not there.
    fn value_from(&self, from: &Tree) -> Result<Option<String>, String> {
        if from.has("fieldRef") {
            let path = from.at("fieldRef").text("fieldPath");
            return downward::field(self.facts, self.pod, self.addresses, path).map(Some);
        }
        if from.has("resourceFieldRef") {
            let reference = from.at("resourceFieldRef");
            return downward::resource(self.facts, self.pod, Some(self.container), reference).map(Some);
        }
        let (reference, secret) = match (from.at("configMapKeyRef"), from.at("secretKeyRef")) {
            (Tree::Null, Tree::Null) if from.has("fileKeyRef") => {
                return Err("variables from files (fileKeyRef) are not supported on this node".to_owned());
            }
            (Tree::Null, Tree::Null) => return Ok(Some(String::new())),
            (Tree::Null, r) => (r, true),
            (r, _) => (r, false),
        };
        let (name, key, optional) = (reference.text("name"), reference.text("key"), reference.flag("optional"));
        let object = if secret { self.read.secret(name)? } else { self.read.config_map(name)? };
        match object.map(|o| o.at("data").at(key)) {
            None if optional => Ok(None),
            None => Err(missing(secret, name)),
            Some(Tree::Null) if optional => Ok(None),
            Some(Tree::Null) => {
                let kind = if secret { "Secret" } else { "ConfigMap" };
                Err(format!("couldn't find key {key} in {kind} {}/{name}", self.pod.at("metadata").text("namespace")))
            }
            Some(value) => Ok(Some(text_of(secret, value))),
        }
    }

    /// What links made of every service with an address (`envvars.FromServices`), and the API itself.
    fn service_variables(&self) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        if self.pod.at("spec").at("enableServiceLinks").as_bool() != Some(false) {
            for service in self.services {
                service_links(service, &mut all);
            }
        }
        if let Some((host, port)) = &self.facts.api {
            let port = port.to_string();
            links("KUBERNETES", host, &[("https", "TCP", &port)], &mut all);
        }
        all
    }
}

fn service_links(service: &Tree, all: &mut BTreeMap<String, String>) {
    let spec = service.at("spec");
    let address = spec.text("clusterIP");
    if matches!(address, "" | "None") {
        return;
    }
    let name = service.at("metadata").text("name").to_uppercase().replace('-', "_");
    let numbers: Vec<String> = spec.list("ports").iter().map(|p| p.int("port").unwrap_or(0).to_string()).collect();
    let ports: Vec<(&str, &str, &str)> = spec
        .list("ports")
        .iter()
        .zip(&numbers)
        .map(|(p, number)| (p.text("name"), p.text("protocol"), number.as_str()))
        .collect();
    links(&name, address, &ports, all);
}

/// Variables of one service, with Docker's links among them.
fn links(name: &str, host: &str, ports: &[(&str, &str, &str)], all: &mut BTreeMap<String, String>) {
    let Some((_, _, first)) = ports.first() else { return };
    let mut set = |key: String, value: String| drop(all.insert(key, value));
    set(format!("{name}_SERVICE_HOST"), host.to_owned());
    set(format!("{name}_SERVICE_PORT"), (*first).to_owned());
    let bracketed = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    for (i, (port_name, protocol, port)) in ports.iter().enumerate() {
        if !port_name.is_empty() {
            let upper = port_name.to_uppercase().replace('-', "_");
            set(format!("{name}_SERVICE_PORT_{upper}"), (*port).to_owned());
        }
        let protocol = if protocol.is_empty() { "TCP" } else { protocol };
        let lower = protocol.to_lowercase();
        let url = format!("{lower}://{bracketed}:{port}");
        let prefix = format!("{name}_PORT_{port}_{}", protocol.to_uppercase());
        if i == 0 {
            set(format!("{name}_PORT"), url.clone());
        }
        set(prefix.clone(), url);
        set(format!("{prefix}_PROTO"), lower);
        set(format!("{prefix}_PORT"), (*port).to_owned());
        set(format!("{prefix}_ADDR"), host.to_owned());
    }
}

/// How a missing object is named, as the API names it.
fn missing(secret: bool, name: &str) -> String {
    let plural = if secret { "secret" } else { "configmap" };
    format!("{plural} {} not found", objects::status::quote(name))
}

/// A value of an object's `data`: text in a ConfigMap, base64 in a Secret.
fn text_of(secret: bool, value: &Tree) -> String {
    let text = value.as_str().unwrap_or_default();
    if secret { String::from_utf8_lossy(&super::sources::decode(text)).into_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    struct Store(Tree, Tree);
    impl Read for Store {
        fn config_map(&self, name: &str) -> Result<Option<&Tree>, String> {
            if name == "cut-off" { Err("the cell does not answer".to_owned()) } else { Ok(self.0.get(name)) }
        }
        fn secret(&self, name: &str) -> Result<Option<&Tree>, String> {
            Ok(self.1.get(name))
        }
    }

    fn variables(container: Tree) -> Result<Vec<(String, String)>, String> {
        let facts = NodeFacts { api: Some(("10.43.0.1".into(), 443)), ..NodeFacts::default() };
        let pod = json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {"enableServiceLinks": true}});
        let services = [
            json!({"metadata": {"name": "my-db"}, "spec": {"clusterIP": "10.43.0.7", "ports": [{"name": "main", "port": 5432, "protocol": "TCP"}]}}),
            json!({"metadata": {"name": "headless"}, "spec": {"clusterIP": "None", "ports": [{"port": 1}]}}),
        ];
        let store = Store(json!({"cm": {"data": {"a": "1", "b": "2"}}}), json!({"s": {"data": {"user": "YWRtaW4="}}}));
        let env =
            Env { facts: &facts, pod: &pod, container: &container, addresses: &[], read: &store, services: &services };
        env.variables()
    }

    #[test]
    fn later_sources_win_and_names_refer_to_what_stands_before_them() {
        let got = variables(json!({
            "envFrom": [{"prefix": "P_", "configMapRef": {"name": "cm"}}, {"secretRef": {"name": "s"}},
                {"configMapRef": {"name": "gone", "optional": true}}],
            "env": [
                {"name": "user", "value": "$(user)-$(MY_DB_SERVICE_HOST)-$(later)"},
                {"name": "later", "value": "x"},
                {"name": "P_a", "valueFrom": {"secretKeyRef": {"name": "s", "key": "user"}}},
                {"name": "skipped", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "z", "optional": true}}},
                {"name": "empty"},
            ]
        }))
        .unwrap();
        let own: Vec<(&str, &str)> = got
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str()))
            .filter(|(k, _)| !k.starts_with("MY_DB") && !k.starts_with("KUBERNETES"))
            .collect();
        let want =
            [("P_b", "2"), ("user", "admin-10.43.0.7-$(later)"), ("later", "x"), ("P_a", "admin"), ("empty", "")];
        assert_eq!(own, want);
    }

    #[test]
    fn services_are_told_as_docker_links_were() {
        let got: BTreeMap<String, String> = variables(json!({})).unwrap().into_iter().collect();
        let want = [
            ("KUBERNETES_PORT", "tcp://10.43.0.1:443"),
            ("KUBERNETES_PORT_443_TCP", "tcp://10.43.0.1:443"),
            ("KUBERNETES_PORT_443_TCP_ADDR", "10.43.0.1"),
            ("KUBERNETES_PORT_443_TCP_PORT", "443"),
            ("KUBERNETES_PORT_443_TCP_PROTO", "tcp"),
            ("KUBERNETES_SERVICE_HOST", "10.43.0.1"),
            ("KUBERNETES_SERVICE_PORT", "443"),
            ("KUBERNETES_SERVICE_PORT_HTTPS", "443"),
            ("MY_DB_PORT", "tcp://10.43.0.7:5432"),
            ("MY_DB_PORT_5432_TCP", "tcp://10.43.0.7:5432"),
            ("MY_DB_PORT_5432_TCP_ADDR", "10.43.0.7"),
            ("MY_DB_PORT_5432_TCP_PORT", "5432"),
            ("MY_DB_PORT_5432_TCP_PROTO", "tcp"),
            ("MY_DB_SERVICE_HOST", "10.43.0.7"),
            ("MY_DB_SERVICE_PORT", "5432"),
            ("MY_DB_SERVICE_PORT_MAIN", "5432"),
        ];
        let want: BTreeMap<String, String> = want.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        assert_eq!(got, want);
    }

    #[test]
    fn what_is_missing_and_not_optional_is_named() {
        for (container, want) in [
            (json!({"envFrom": [{"configMapRef": {"name": "gone"}}]}), "configmap \"gone\" not found"),
            (
                json!({"env": [{"name": "x", "valueFrom": {"secretKeyRef": {"name": "gone", "key": "k"}}}]}),
                "secret \"gone\" not found",
            ),
            (
                json!({"env": [{"name": "x", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "k"}}}]}),
                "couldn't find key k in ConfigMap n/cm",
            ),
            (json!({"envFrom": [{"configMapRef": {"name": "cut-off"}}]}), "the cell does not answer"),
        ] {
            assert_eq!(variables(container.clone()).unwrap_err(), want, "{container}");
        }
    }
}
