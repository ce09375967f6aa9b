//! Parses the parts of a source file that the rules check.

use std::collections::{BTreeMap, BTreeSet};
use std::iter;

use proc_macro2::{Ident, TokenStream, TokenTree};
use quote::ToTokens;
use syn::visit_mut::{self, VisitMut};
use syn::{Attribute, Expr, ImplItem, Item, Lit, Meta, Signature, Type, UseTree, spanned::Spanned};

/// Maximum number of re-exports between an import and the item.
const MAX_REEXPORTS: usize = 10;

/// Words or names, each with its line.
pub(crate) type Words = Vec<(usize, String)>;

/// A source file. Only `raw` and `words_with_tests` include code for tests.
#[derive(Default)]
pub(crate) struct Source {
    /// Below `src`, with slashes.
    pub(crate) path: String,
    pub(crate) raw: String,
    /// The path of the file's module, which begins with `crate`.
    pub(crate) module: String,
    pub(crate) lines: usize,
    /// Paths and single words. `crate`, `self` and `super` are resolved.
    pub(crate) words: Words,
    pub(crate) words_with_tests: Words,
    /// Types and functions, each after its kind.
    pub(crate) names: Words,
    /// Constants, each before the first line of its docstring. Texts and other references are left out.
    pub(crate) constants: Words,
    /// The modules of other files that this one imports from, also through re-exports. A module and those below it are
    /// one.
    pub(crate) imports: BTreeSet<String>,
    /// The paths of names that `use` items bind in this file's modules, and the paths that they stand for.
    bindings: BTreeMap<String, String>,
    test_modules: Vec<String>,
}

/// Parses a crate's files, each a path and its text. Test files are left empty.
pub(crate) fn parse(files: Vec<(String, String)>) -> Vec<Source> {
    let mut sources = Vec::from_iter(files.into_iter().map(Source::parse));
    let tests = Vec::from_iter(sources.iter().flat_map(|file| file.test_modules.clone()));
    for source in &mut sources {
        if tests.iter().any(|test| is_in(test, &source.module)) {
            (source.lines, source.words) = Default::default();
            (source.names, source.constants) = Default::default();
        }
    }
    let modules = BTreeSet::from_iter(sources.iter().map(|source| source.module.clone()));
    let bindings = sources.iter().flat_map(|source| source.bindings.clone());
    let bindings = BTreeMap::from_iter(bindings);
    for source in &mut sources {
        let module_of = |path: String| prefixes(&path).find_map(|path| modules.get(path)).cloned();
        let paths = source.words.iter();
        let paths = paths.flat_map(|(_, path)| follow_reexports(path, &bindings));
        source.imports = paths.filter_map(module_of).collect();
        let own = &source.module;
        source
            .imports
            .retain(|other| !is_in(other, own) && !is_in(own, other));
    }
    sources
}

impl Source {
    fn parse((path, raw): (String, String)) -> Self {
        let mut file = syn::parse_file(&raw).unwrap_or_else(|error| panic!("{path}: {error}"));
        let module = match path.trim_end_matches(".rs") {
            "lib" | "main" => "crate".to_owned(),
            below => format!("crate::{}", below.replace('/', "::")),
        };
        let mut source = Self::default();
        collect_words(
            file.to_token_stream(),
            &module,
            "",
            &mut source.words_with_tests,
        );
        (source.lines, source.module) = (raw.lines().count(), module);
        source.visit_file_mut(&mut file);
        collect_bindings(&file.items, &source.module, &mut source.bindings);
        collect_words(
            file.to_token_stream(),
            &source.module,
            "",
            &mut source.words,
        );
        Self {
            path,
            raw,
            ..source
        }
    }

    fn note(&mut self, kind: &str, name: &Ident) {
        let line = name.span().start().line;
        self.names.push((line, format!("{kind} {name}")));
    }

    fn note_constant(&mut self, attributes: &[Attribute], name: &Ident, kind: &Type) {
        if !matches!(kind, Type::Reference(_)) {
            let doc = attributes.iter().find_map(doc_line).unwrap_or_default();
            let line = name.span().start().line;
            self.constants.push((line, format!("{name}:{doc}")));
        }
    }

    /// Whether `node` is for tests only. If so, its lines do not count.
    fn drop_test(&mut self, node: &impl ToTokens) -> bool {
        let tokens = Vec::from_iter(node.to_token_stream());
        let mut attributes = tokens
            .chunks(2)
            .take_while(|pair| pair[0].to_string() == "#");
        let is_test = attributes.any(|pair| pair[1].to_string() == "[cfg (test)]");
        if is_test {
            self.lines -= node.span().end().line - node.span().start().line + 1;
        }
        is_test
    }
}

/// Collects names, and removes code that is for tests only.
impl VisitMut for Source {
    fn visit_item_mut(&mut self, item: &mut Item) {
        if self.drop_test(item) {
            if let Item::Mod(module) = item {
                let module = format!("{}::{}", self.module, module.ident);
                self.test_modules.push(module);
            }
            *item = Item::Verbatim(TokenStream::new());
        }
        match item {
            Item::Struct(item) => self.note("type", &item.ident),
            Item::Enum(item) => self.note("type", &item.ident),
            Item::Trait(item) => self.note("type", &item.ident),
            Item::Type(item) => self.note("type", &item.ident),
            Item::Fn(item) => self.note("no conversion, fn", &item.sig.ident),
            Item::Const(item) => self.note_constant(&item.attrs, &item.ident, &item.ty),
            _ => {}
        }
        visit_mut::visit_item_mut(self, item);
    }

    fn visit_impl_item_mut(&mut self, item: &mut ImplItem) {
        if self.drop_test(item) {
            *item = ImplItem::Verbatim(TokenStream::new());
        }
        if let ImplItem::Const(item) = item {
            self.note_constant(&item.attrs, &item.ident, &item.ty);
        }
        visit_mut::visit_impl_item_mut(self, item);
    }

    /// A conversion `of` is an associated function of one value, perhaps as of a time.
    fn visit_signature_mut(&mut self, signature: &mut Signature) {
        self.note("fn", &signature.ident);
        if signature.receiver().is_some() || !(1..=2).contains(&signature.inputs.len()) {
            self.note("no conversion, fn", &signature.ident);
        }
    }
}

/// The text of `attribute` if it is a line of a docstring.
fn doc_line(attribute: &Attribute) -> Option<String> {
    let Meta::NameValue(meta) = &attribute.meta else {
        return None;
    };
    match &meta.value {
        Expr::Lit(value) if meta.path.is_ident("doc") => match &value.lit {
            Lit::Str(line) => Some(line.value()),
            _ => None,
        },
        _ => None,
    }
}

/// Collects words and paths from code of `module`, including macros. `base` is the path before a group of a `use`.
fn collect_words(code: TokenStream, module: &str, base: &str, found: &mut Words) {
    let tokens = Vec::from_iter(code);
    let text = |i: usize| match tokens.get(i) {
        None | Some(TokenTree::Group(_)) => String::new(),
        Some(token) => token.to_string(),
    };
    let mut i = 0;
    while let Some(token) = tokens.get(i) {
        i += 1;
        match (token, text(i - 1).as_str()) {
            (TokenTree::Group(group), _) if i > 2 && text(i - 3) == "mod" => {
                let module = format!("{module}::{}", text(i - 2));
                collect_words(group.stream(), &module, "", found);
            }
            (TokenTree::Group(group), _) => collect_words(group.stream(), module, "", found),
            // The new name of an import.
            (_, "as") if !base.is_empty() => i += 1,
            (TokenTree::Ident(_), _) | (_, "*") => {
                let mut path = format!("{base}{}", text(i - 1));
                while text(i) == ":" && text(i + 1) == ":" && text(i + 2) != "<" {
                    path += &format!("::{}", text(i + 2));
                    if let Some(TokenTree::Group(group)) = tokens.get(i + 2) {
                        collect_words(group.stream(), module, &path, found);
                    }
                    i += 3;
                }
                if !path.ends_with("::") {
                    found.push((token.span().start().line, resolve(&path, module)));
                }
            }
            _ => {}
        }
    }
}

/// Collects the names that the `use` items of `module` bind.
fn collect_bindings(items: &[Item], module: &str, found: &mut BTreeMap<String, String>) {
    for item in items {
        match item {
            Item::Use(item) => bind_names(&item.tree, "", module, found),
            Item::Mod(item) => {
                let module = format!("{module}::{}", item.ident);
                let items = item.content.as_ref().map(|(_, items)| &items[..]);
                collect_bindings(items.unwrap_or_default(), &module, found);
            }
            _ => {}
        }
    }
}

/// `base` is the path before `tree`, which ends in `::` unless it is empty.
fn bind_names(tree: &UseTree, base: &str, module: &str, found: &mut BTreeMap<String, String>) {
    let mut bind = |path: &str, name: Option<&Ident>| {
        let path = resolve(path.trim_end_matches("::self"), module);
        let own = name.map(Ident::to_string);
        let name = own.as_deref().or(path.rsplit("::").next());
        let bound = format!("{module}::{}", name.unwrap_or_default());
        if bound != path {
            found.insert(bound, path);
        }
    };
    match tree {
        UseTree::Path(tree) => {
            bind_names(
                &tree.tree,
                &format!("{base}{}::", tree.ident),
                module,
                found,
            );
        }
        UseTree::Name(tree) => bind(&format!("{base}{}", tree.ident), None),
        UseTree::Rename(tree) => bind(&format!("{base}{}", tree.ident), Some(&tree.rename)),
        UseTree::Group(tree) => {
            for tree in &tree.items {
                bind_names(tree, base, module, found);
            }
        }
        UseTree::Glob(_) => {}
    }
}

/// A path, and the paths that it stands for where a module on it re-exports the next name from elsewhere.
fn follow_reexports(
    path: &str,
    bindings: &BTreeMap<String, String>,
) -> impl Iterator<Item = String> {
    let next = |path: &String| {
        let bound = prefixes(path).find(|prefix| bindings.contains_key(*prefix))?;
        Some(format!("{}{}", bindings[bound], &path[bound.len()..]))
    };
    iter::successors(Some(path.to_owned()), next).take(MAX_REEXPORTS + 1)
}

/// A path and all paths that it begins with, the longest first.
fn prefixes(path: &str) -> impl Iterator<Item = &str> {
    iter::successors(Some(path), |path| Some(path.rsplit_once("::")?.0))
}

fn resolve(path: &str, module: &str) -> String {
    let is_relative = is_in("self", path) || is_in("super", path);
    let start = if is_relative { module } else { "" };
    let mut segments = Vec::from_iter(start.split_terminator("::"));
    for segment in path.split("::") {
        match segment {
            "self" => {}
            "super" => drop(segments.pop()),
            "lagwise" => segments.push("crate"),
            name => segments.push(name),
        }
    }
    segments.join("::")
}

/// Whether `path` is `root` or below it.
pub(crate) fn is_in(root: &str, path: &str) -> bool {
    path == root || name_below(root, path).is_some()
}

/// The segment of `path` that follows `root`.
pub(crate) fn name_below<'a>(root: &str, path: &'a str) -> Option<&'a str> {
    let rest = path.strip_prefix(root)?.strip_prefix("::")?;
    rest.split("::").next()
}
