//! Where in an object the decoder stands. Each step lives on the stack of the visit to it, so that a correct text costs no allocation.

/// A step and the way to it.
#[derive(Clone, Copy)]
pub(super) enum Path<'p> {
    Root,
    /// A field, and the name of the type it belongs to.
    Field {
        parent: &'p Path<'p>,
        name: &'p str,
        owner: &'p str,
    },
    /// A key of a map.
    Key {
        parent: &'p Path<'p>,
        name: &'p str,
    },
    /// An element of a list.
    Index {
        parent: &'p Path<'p>,
        index: usize,
    },
}

impl Path<'_> {
    /// The path in full, with one more name at its end: `spec.containers[0].image`.
    pub(super) fn with(&self, name: &str) -> String {
        let mut text = self.full();
        if !text.is_empty() {
            text.push('.');
        }
        text.push_str(name);
        text
    }

    fn full(&self) -> String {
        match self {
            Path::Root => String::new(),
            Path::Field { parent, name, .. } | Path::Key { parent, name } => parent.with(name),
            Path::Index { parent, index } => format!("{}[{index}]", parent.full()),
        }
    }

    /// As type errors have it: the innermost type and the fields on the way, without map keys and indexes. None at the root.
    pub(super) fn struct_field(&self) -> Option<String> {
        let mut owner = None;
        let mut fields = Vec::new();
        let mut at = self;
        loop {
            match at {
                Path::Root => break,
                Path::Field { parent, name, owner: of } => {
                    owner = owner.or(Some(*of));
                    fields.push(*name);
                    at = parent;
                }
                Path::Key { parent, .. } | Path::Index { parent, .. } => at = parent,
            }
        }
        fields.reverse();
        Some(format!("{}.{}", owner?, fields.join(".")))
    }
}
