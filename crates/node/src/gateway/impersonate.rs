//! What it takes to act as somebody else: `impersonate` on the name, on every group that was named, and on
//! every extra value (kube-apiserver's impersonation filter).

use objects::rbac::Attributes;
use objects::request::User;

const SERVICE_ACCOUNT: &str = "system:serviceaccount:";

/// Everything that must be allowed. What has a namespace is a question to that namespace's cell, whose
/// RoleBindings may allow it.
pub fn required(wanted: &User) -> Vec<Attributes> {
    let plain = |resource: &str, name: &str| Attributes {
        verb: "impersonate".into(),
        resource: resource.into(),
        name: name.into(),
        ..Attributes::default()
    };
    let mut all = Vec::new();
    let account = wanted.name.strip_prefix(SERVICE_ACCOUNT).and_then(|n| n.split_once(':'));
    match account {
        Some((namespace, name)) => {
            all.push(Attributes { namespace: namespace.into(), ..plain("serviceaccounts", name) });
        }
        None => all.push(plain("users", &wanted.name)),
    }
    // The group every authenticated user has comes with the name, and so do those of a ServiceAccount and of
    // nobody in particular, unless others were named.
    let mut groups: Vec<&str> = wanted.groups.iter().map(String::as_str).collect();
    groups.retain(|g| *g != "system:authenticated");
    let implied = match account {
        Some((namespace, _)) => {
            groups == ["system:serviceaccounts", format!("system:serviceaccounts:{namespace}").as_str()]
        }
        None => wanted.name == "system:anonymous" && groups == ["system:unauthenticated"],
    };
    if !implied {
        all.extend(groups.into_iter().map(|g| plain("groups", g)));
    }
    let group = "authentication.k8s.io";
    if !wanted.uid.is_empty() {
        all.push(Attributes { group: group.into(), ..plain("uids", &wanted.uid) });
    }
    for (key, values) in &wanted.extra {
        all.extend(values.iter().map(|v| Attributes {
            group: group.into(),
            subresource: key.clone(),
            ..plain("userextras", v)
        }));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_named_must_be_allowed_and_what_comes_with_a_name_need_not() {
        let cases: [(&str, &[&str], &[&str]); 7] = [
            ("ann", &["system:authenticated"], &["users ann"]),
            ("ann", &["qa", "system:authenticated"], &["users ann", "groups qa"]),
            (
                "system:serviceaccount:ns:n",
                &["system:serviceaccounts", "system:serviceaccounts:ns", "system:authenticated"],
                &["serviceaccounts n ns"],
            ),
            (
                "system:serviceaccount:ns:n",
                &["system:serviceaccounts", "system:serviceaccounts:other"],
                &["serviceaccounts n ns", "groups system:serviceaccounts", "groups system:serviceaccounts:other"],
            ),
            (
                "system:serviceaccount:ns:n",
                &["qa", "system:serviceaccounts"],
                &["serviceaccounts n ns", "groups qa", "groups system:serviceaccounts"],
            ),
            ("system:anonymous", &["system:unauthenticated"], &["users system:anonymous"]),
            ("ann", &["system:unauthenticated"], &["users ann", "groups system:unauthenticated"]),
        ];
        for (name, groups, want) in cases {
            let groups = groups.iter().map(|g| (*g).to_owned()).collect();
            let wanted = User { name: name.into(), groups, ..User::default() };
            let said = |a: &Attributes| format!("{} {} {}", a.resource, a.name, a.namespace).trim_end().to_owned();
            assert_eq!(required(&wanted).iter().map(said).collect::<Vec<_>>(), want, "{wanted:?}");
        }
        let wanted =
            User { name: "a".into(), uid: "u".into(), extra: vec![("k".into(), vec!["v".into()])], ..User::default() };
        let said = |a: Attributes| (a.group, a.resource, a.subresource, a.name);
        let text = |t: [&str; 4]| (t[0].to_owned(), t[1].to_owned(), t[2].to_owned(), t[3].to_owned());
        let want = [
            text(["", "users", "", "a"]),
            text(["authentication.k8s.io", "uids", "", "u"]),
            text(["authentication.k8s.io", "userextras", "k", "v"]),
        ];
        assert_eq!(required(&wanted).into_iter().map(said).collect::<Vec<_>>(), want);
    }
}
