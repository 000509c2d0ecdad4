//! Go sources, read for what neither OpenAPI nor protobuf documents tell: whether a field is a pointer,
//! whether its zero value is left out of JSON, and which JSON name a protobuf field has.
//!
//! Not a Go parser: it reads the one style in which Kubernetes' `types.go` files are written, a field a
//! line with its tag in backticks, and refuses what it does not know.

use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::path::Path;

/// A field of a Go struct as written.
#[derive(Debug, Clone)]
pub(super) struct GoField {
    /// Name in JSON; empty for an embedded struct whose fields JSON shows as the parent's own.
    pub(super) json: String,
    /// The type as written, imports resolved to module paths: `*k8s.io/api/core/v1.PodSpec`.
    pub(super) ty: String,
    pub(super) omit_empty: bool,
    pub(super) omit_zero: bool,
    /// Field number; 0 without a protobuf tag.
    pub(super) number: u32,
}

/// A package: structs and named types.
#[derive(Debug, Default)]
pub(super) struct GoPackage {
    pub(super) structs: BTreeMap<String, Vec<GoField>>,
    pub(super) named: BTreeMap<String, String>,
}

/// Packages by import path, read when first asked for.
pub(super) struct GoSources<'a> {
    modules: &'a Path,
    version: &'a str,
    packages: BTreeMap<String, GoPackage>,
}

impl<'a> GoSources<'a> {
    /// `modules` holds `k8s.io/<module>@<version>` as `go mod download` leaves them.
    pub(super) fn new(modules: &'a Path, version: &'a str) -> Self {
        GoSources { modules, version, packages: BTreeMap::new() }
    }

    /// The package of an import path such as `k8s.io/api/core/v1`.
    pub(super) fn package(&mut self, path: &str) -> Result<&GoPackage> {
        if !self.packages.contains_key(path) {
            let p = self.read(path).with_context(|| format!("reading Go package {path}"))?;
            self.packages.insert(path.to_owned(), p);
        }
        Ok(&self.packages[path])
    }

    fn read(&self, path: &str) -> Result<GoPackage> {
        let mut parts = path.splitn(3, '/');
        let (host, module, rest) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""), parts.next().unwrap_or(""));
        let dir = self.modules.join(host).join(format!("{module}@{}", self.version)).join(rest);
        let mut out = GoPackage::default();
        let mut files: Vec<_> = std::fs::read_dir(&dir)
            .with_context(|| format!("{} (fetch it: go mod download {host}/{module}@{})", dir.display(), self.version))?
            .collect::<std::io::Result<Vec<_>>>()?
            .into_iter()
            .map(|e| e.path())
            .filter(|p| {
                let n = p.file_name().and_then(|n| n.to_str()).unwrap_or("");
                n.ends_with(".go")
                    && !n.ends_with("_test.go")
                    && !n.starts_with("zz_")
                    && !n.ends_with(".pb.go")
                    && !n.contains("swagger")
            })
            .collect();
        files.sort();
        for f in files {
            parse(&std::fs::read_to_string(&f)?, path, &mut out).with_context(|| f.display().to_string())?;
        }
        Ok(out)
    }
}

fn parse(text: &str, package: &str, out: &mut GoPackage) -> Result<()> {
    let mut imports: BTreeMap<String, String> = BTreeMap::new();
    let mut in_import = false;
    let mut current: Option<(String, Vec<GoField>)> = None;
    for line in text.lines() {
        let code = line.trim();
        if code == "import (" {
            in_import = true;
            continue;
        }
        if in_import || line.starts_with("import ") {
            if code == ")" {
                in_import = false;
            } else if let Some((alias, path)) = import(code.trim_start_matches("import ")) {
                imports.insert(alias, path);
            }
            continue;
        }
        if let Some((name, fields)) = current.as_mut() {
            if line == "}" {
                out.structs.insert(std::mem::take(name), std::mem::take(fields));
                current = None;
            } else if let Some(f) = field(code, package, &imports)? {
                fields.push(f);
            }
            continue;
        }
        if let Some(rest) = line.strip_prefix("type ") {
            let Some((name, ty)) = rest.split_once(' ') else { continue };
            match ty {
                "struct {" => current = Some((name.to_owned(), Vec::new())),
                "struct{}" | "struct {}" => drop(out.structs.insert(name.to_owned(), Vec::new())),
                _ if ty.contains("interface") || ty.contains("func(") || ty == "(" || name.contains('[') => {}
                _ => drop(out.named.insert(name.to_owned(), resolve(ty.trim_start_matches("= "), package, &imports))),
            }
        }
    }
    Ok(())
}

fn import(code: &str) -> Option<(String, String)> {
    let open = code.find('"')?;
    let path = code[open + 1..].strip_suffix('"')?.to_owned();
    let alias = code[..open].trim();
    let alias = if alias.is_empty() { path.rsplit('/').next()?.to_owned() } else { alias.to_owned() };
    Some((alias, path))
}

fn field(code: &str, package: &str, imports: &BTreeMap<String, String>) -> Result<Option<GoField>> {
    if code.starts_with("//") {
        return Ok(None);
    }
    let Some(tick) = code.find('`') else { return Ok(None) };
    let Some(end) = code[tick + 1..].find('`') else { bail!("a tag that does not end: {code}") };
    let tags = &code[tick + 1..tick + 1 + end];
    let mut left = code[..tick].split_whitespace();
    let (first, second) = (left.next().unwrap_or(""), left.collect::<String>());
    let Some(json) = tag(tags, "json") else { return Ok(None) };
    let mut json = json.split(',');
    let name = json.next().unwrap_or("");
    let opts: Vec<_> = json.collect();
    let embedded = second.is_empty();
    if name == "-" {
        return Ok(None);
    }
    let number = tag(tags, "protobuf").and_then(|p| p.split(',').nth(1)?.parse().ok()).unwrap_or(0);
    let ty = resolve(if embedded { first } else { &second }, package, imports);
    Ok(Some(GoField {
        json: name.to_owned(),
        ty,
        omit_empty: opts.contains(&"omitempty"),
        omit_zero: opts.contains(&"omitzero"),
        number,
    }))
}

fn tag<'t>(tags: &'t str, key: &str) -> Option<&'t str> {
    let at = tags.find(&format!("{key}:\""))? + key.len() + 2;
    let end = tags[at..].find('"')?;
    Some(&tags[at..at + end])
}

/// Writes out imports and the own package in a type expression.
fn resolve(ty: &str, package: &str, imports: &BTreeMap<String, String>) -> String {
    let ty = ty.trim();
    for prefix in ["*", "[]"] {
        if let Some(rest) = ty.strip_prefix(prefix) {
            return format!("{prefix}{}", resolve(rest, package, imports));
        }
    }
    if let Some(rest) = ty.strip_prefix("map[")
        && let Some((key, value)) = rest.split_once(']')
    {
        let _ = key;
        return format!("map[string]{}", resolve(value, package, imports));
    }
    const BUILTIN: &[&str] = &[
        "string",
        "bool",
        "int",
        "int32",
        "int64",
        "float64",
        "byte",
        "interface{}",
        "uint8",
        "uint16",
        "uint32",
        "uint64",
    ];
    if BUILTIN.contains(&ty) {
        return ty.to_owned();
    }
    match ty.split_once('.') {
        Some((alias, name)) => format!("{}.{name}", imports.get(alias).map_or(alias, String::as_str)),
        None => format!("{package}.{ty}"),
    }
}
