//! A text as nodes: what the parser's events say, without looking into scalars or following references.

use granit_parser::{Event, Parser, ScalarStyle, Span, Tag};
use std::borrow::Cow;
use std::collections::HashMap;

/// The place of a node.
pub type Id = usize;

/// What a scalar, a list or a map is said to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text, said or quoted.
    Text,
    /// Text in base64.
    Binary,
    /// As read must be this.
    Int,
    Float,
    Bool,
    Null,
}

/// One node.
pub enum Node<'t> {
    /// A scalar; `None`: a plain one that is what it looks like.
    Scalar(Cow<'t, str>, Option<Kind>),
    List(Vec<Id>),
    Map(Vec<(Id, Id)>),
    /// A reference to an earlier node, or to one that is still open.
    Alias(Id),
}

/// The first document of a text.
#[derive(Default)]
pub struct Composed<'t> {
    /// All nodes.
    pub nodes: Vec<Node<'t>>,
    /// The line on which each begins, from 1.
    pub lines: Vec<usize>,
    /// The outermost one; `None`: the text holds nothing.
    pub root: Option<Id>,
}

/// Reads a text in which nothing is nested deeper than `depth`.
pub fn compose(text: &str, depth: usize) -> Result<Composed<'_>, String> {
    let mut composer = Composer { made: Composed::default(), open: Vec::new(), anchors: HashMap::new(), depth };
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|e| format!("yaml: line {}: {}", e.marker().line(), e.info()))?;
        if !composer.take(event, span)? {
            break;
        }
    }
    Ok(composer.made)
}

struct Composer<'t> {
    made: Composed<'t>,
    /// Lists and maps that have not ended; of a map also the key that waits for its value.
    open: Vec<(Id, Option<Id>)>,
    anchors: HashMap<usize, Id>,
    depth: usize,
}

impl<'t> Composer<'t> {
    /// Takes one event; `false` after the last one of the document.
    fn take(&mut self, event: Event<'t>, span: Span) -> Result<bool, String> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let kind = kind(style, tag.as_deref());
                self.add(Node::Scalar(text, kind), anchor, span);
            }
            Event::SequenceStart(_, anchor, _) => self.begin(Node::List(Vec::new()), anchor, span)?,
            Event::MappingStart(_, anchor, _) => self.begin(Node::Map(Vec::new()), anchor, span)?,
            Event::SequenceEnd | Event::MappingEnd => drop(self.open.pop()),
            Event::Alias(anchor) => {
                let target = *self.anchors.get(&anchor).ok_or("yaml: unknown anchor referenced")?;
                self.add(Node::Alias(target), 0, span);
            }
            Event::DocumentEnd => return Ok(false),
            _ => {}
        }
        Ok(true)
    }

    fn begin(&mut self, node: Node<'t>, anchor: usize, span: Span) -> Result<(), String> {
        if self.open.len() >= self.depth {
            return Err(format!("yaml: exceeded max depth of {}", self.depth));
        }
        let id = self.add(node, anchor, span);
        self.open.push((id, None));
        Ok(())
    }

    fn add(&mut self, node: Node<'t>, anchor: usize, span: Span) -> Id {
        let id = self.made.nodes.len();
        self.made.nodes.push(node);
        self.made.lines.push(span.start.line());
        if anchor > 0 {
            self.anchors.insert(anchor, id);
        }
        let Some((parent, key)) = self.open.last_mut() else {
            self.made.root = Some(id);
            return id;
        };
        match (&mut self.made.nodes[*parent], key.take()) {
            (Node::Map(entries), Some(key)) => entries.push((key, id)),
            (Node::Map(_), None) => *key = Some(id),
            (Node::List(items), _) => items.push(id),
            // Only lists and maps are opened.
            (Node::Scalar(..) | Node::Alias(_), _) => {}
        }
        id
    }
}

fn kind(style: ScalarStyle, tag: Option<&Tag>) -> Option<Kind> {
    let Some(tag) = tag else { return (style != ScalarStyle::Plain).then_some(Kind::Text) };
    Some(match tag.suffix_in_namespace("tag:yaml.org,2002:").as_deref() {
        Some("binary") => Kind::Binary,
        Some("int") => Kind::Int,
        Some("float") => Kind::Float,
        Some("bool") => Kind::Bool,
        Some("null") => Kind::Null,
        _ => Kind::Text,
    })
}
