//! How an informer's copy holds one object: as the tree that readers get, or as text where there are too many for trees.

use std::sync::Arc;

use serde_json::Value;

/// An object at rest; clones share it.
#[derive(Clone, Debug)]
pub(crate) enum Kept {
    /// Every reader gets this one.
    Tree(Arc<Value>),
    /// JSON, about a tenth of the tree's size; every reader gets a tree of its own.
    Text(Arc<str>),
}

impl Kept {
    /// Holds the object in the form that is asked for.
    pub(crate) fn new(object: &Arc<Value>, compact: bool) -> Self {
        if compact { Kept::Text(object.to_string().into()) } else { Kept::Tree(Arc::clone(object)) }
    }

    /// The object.
    pub(crate) fn object(&self) -> Arc<Value> {
        match self {
            Kept::Tree(tree) => Arc::clone(tree),
            Kept::Text(text) => Arc::new(tree(text)),
        }
    }

    /// Whether this part of JSON may stand in the object; certain only if not.
    pub(crate) fn may_contain(&self, json: &str) -> bool {
        match self {
            Kept::Tree(_) => true,
            Kept::Text(text) => text.contains(json),
        }
    }

    /// Tells objects in the copy apart: none of them moves while it is there.
    pub(crate) fn place(&self) -> usize {
        match self {
            Kept::Tree(tree) => Arc::as_ptr(tree).addr(),
            Kept::Text(text) => text.as_ptr().addr(),
        }
    }
}

#[expect(clippy::expect_used, reason = "the text was written from a tree that the same parser had read")]
fn tree(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON of our own making")
}
