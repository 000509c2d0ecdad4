//! What somebody may do, and for how long.

use anyhow::{Result, ensure};
use e2e::{Node, Options, Place, until};
use std::time::Duration;

#[test]
fn who_may_watch_one_object_is_shown_that_one() -> Result<()> {
    let place = Place::new("rights")?;
    let node = Node::start(&place, Options::without_pods(place.join("data")))?;
    let kubectl = node.kubectl();
    kubectl.ok(&["create", "namespace", "shop"])?;
    for name in ["mine", "yours"] {
        kubectl.ok(&["-n", "shop", "create", "secret", "generic", name])?;
    }
    let named = "--resource-name=mine";
    kubectl.ok(&["-n", "shop", "create", "role", "one", "--verb=get,watch", "--resource=secrets", named])?;
    kubectl.ok(&["-n", "shop", "create", "rolebinding", "one", "--role=one", "--user=bee"])?;
    let watch =
        |rest: &str| ["get", "--as=bee", "--raw"].map(str::to_owned).into_iter().chain([format!("/api/v1/{rest}")]);
    let all: Vec<String> = watch("watch/namespaces/shop/secrets/mine?timeoutSeconds=2").collect();
    let told = kubectl.ok(&all.iter().map(String::as_str).collect::<Vec<_>>())?;
    ensure!(told.contains("\"mine\"") && !told.contains("\"yours\""), "{told}");
    let other: Vec<String> = watch("watch/namespaces/shop/secrets?timeoutSeconds=2").collect();
    let why = kubectl.refused(&other.iter().map(String::as_str).collect::<Vec<_>>(), "")?;
    ensure!(why.contains("forbidden"), "{why}");
    Ok(())
}

#[test]
fn a_watch_ends_with_the_rights_of_its_user() -> Result<()> {
    let place = Place::new("rights")?;
    let node = Node::start(&place, Options::without_pods(place.join("data")))?;
    let kubectl = node.kubectl();
    kubectl.ok(&["create", "namespace", "shop"])?;
    kubectl.ok(&["-n", "shop", "create", "configmap", "prices"])?;
    kubectl.ok(&["-n", "shop", "create", "role", "reader", "--verb=get,list,watch", "--resource=configmaps"])?;
    for name in ["one", "other"] {
        let account = format!("shop:{name}");
        kubectl.ok(&["-n", "shop", "create", "serviceaccount", name])?;
        kubectl.ok(&["-n", "shop", "create", "rolebinding", name, "--role=reader", "--serviceaccount", &account])?;
    }
    let as_user = |name: &str| format!("--as=system:serviceaccount:shop:{name}");
    let watch = |name: &str| {
        kubectl.watch(&["-n", "shop", &as_user(name), "get", "configmaps", "prices", "--watch", "--output=name"])
    };
    let (one, other) = (watch("one")?, watch("other")?);
    for watching in [&one, &other] {
        watching.until_line("configmap/prices")?;
    }
    kubectl.ok(&["-n", "shop", "delete", "rolebinding", "one"])?;
    one.until_end()?;
    let why = kubectl.refused(&["-n", "shop", &as_user("one"), "get", "configmaps"], "")?;
    ensure!(why.contains("forbidden"), "{why}");
    // Whoever still may is still told.
    kubectl.ok(&["-n", "shop", "label", "configmap", "prices", "x=y"])?;
    let told = || Ok((other.lines().len() > 1).then_some(()));
    until("the other watch to be told", Duration::from_secs(30), told)
}
