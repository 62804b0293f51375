//! What the guard knows of the schema: read from its SDL, so that it cannot differ from what clients are told.

use std::collections::{HashMap, HashSet};

use async_graphql::Number;
use async_graphql::parser::types::{
    BaseType, FieldDefinition, InputValueDefinition, OperationType, Type, TypeKind, TypeSystemDefinition,
};
use async_graphql::{Positioned, Value};

type Named<T> = HashMap<Box<str>, T>;

/// The prefix of the ids that an input takes, if they are of one kind of record: asked with the name of the field whose
/// argument it is, or of the input type that it is in, and its own name.
pub type IdKinds = fn(of: &str, name: &str) -> Option<&'static str>;

/// Tells what is wrong with a value of one scalar.
pub type Judge = fn(&Value) -> Result<(), &'static str>;

/// Who judges the values of a scalar, by its name; without a judge everything is good.
pub type Judges = fn(scalar: &str) -> Option<Judge>;

/// The types of a schema by name. Introspection types are not among them.
pub(super) struct Shape {
    types: Named<Definition>,
    query: Box<str>,
    mutation: Option<Box<str>>,
    subscription: Option<Box<str>>,
}

enum Definition {
    /// An object or interface.
    Fields {
        fields: Named<Field>,
        connection: bool,
    },
    Union,
    Enum(HashSet<Box<str>>),
    Input {
        fields: Named<Input>,
        one_of: bool,
    },
    Scalar(Option<Judge>),
}

/// What a type can be as the type of an input.
pub(super) enum InputType<'a> {
    Scalar(Scalar),
    Enum(&'a HashSet<Box<str>>),
    Object {
        fields: &'a Named<Input>,
        one_of: bool,
    },
    /// A scalar of ours.
    Custom(Option<Judge>),
}

/// The scalars of the specification.
#[derive(Clone, Copy)]
pub(super) enum Scalar {
    Int,
    Float,
    String,
    Boolean,
    Id,
}

/// An output field.
pub(super) struct Field {
    /// The name of its type without lists and non-null marks.
    pub(super) of: Box<str>,
    pub(super) kind: Kind,
    pub(super) arguments: Named<Input>,
}

/// How a field counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A scalar or enum: nothing.
    Leaf,
    /// One object.
    Object,
    /// A list of objects without pages.
    List,
    /// A connection: as many items as its page size says.
    Connection,
    /// The items of a connection inside their edges.
    Edges,
    /// The items of a connection.
    Nodes,
}

/// An argument or a field of an input object.
pub(super) struct Input {
    pub(super) ty: Type,
    pub(super) default: Option<Value>,
    /// For ids: the prefix of the kind of record that is meant.
    pub(super) id: Option<&'static str>,
}

impl Input {
    /// Whether a value must be given.
    pub(super) fn required(&self) -> bool {
        !self.ty.nullable && self.default.is_none()
    }
}

impl Shape {
    pub(super) fn from_sdl(sdl: &str) -> Self {
        let document = async_graphql::parser::parse_schema(sdl).expect("the schema's own SDL parses");
        let mut shape = Shape {
            types: HashMap::new(),
            query: "Query".into(),
            mutation: Some("Mutation".into()),
            subscription: Some("Subscription".into()),
        };
        for definition in document.definitions {
            match definition {
                TypeSystemDefinition::Schema(schema) => {
                    let name = |name: Option<Positioned<_>>| {
                        name.map(|name: Positioned<async_graphql::Name>| Box::from(name.node.as_str()))
                    };
                    shape.query = name(schema.node.query).unwrap_or(shape.query);
                    shape.mutation = name(schema.node.mutation);
                    shape.subscription = name(schema.node.subscription);
                }
                TypeSystemDefinition::Type(ty) => {
                    let one_of = ty
                        .node
                        .directives
                        .iter()
                        .any(|directive| directive.node.name.node == "oneOf");
                    let definition = match ty.node.kind {
                        TypeKind::Scalar => Definition::Scalar(None),
                        TypeKind::Object(object) => fields(object.fields),
                        TypeKind::Interface(interface) => fields(interface.fields),
                        TypeKind::Union(_) => Definition::Union,
                        TypeKind::Enum(values) => Definition::Enum(
                            values
                                .values
                                .into_iter()
                                .map(|value| value.node.value.node.as_str().into())
                                .collect(),
                        ),
                        TypeKind::InputObject(input) => Definition::Input {
                            fields: inputs(input.fields),
                            one_of,
                        },
                    };
                    shape.types.insert(ty.node.name.node.as_str().into(), definition);
                }
                TypeSystemDefinition::Directive(_) => {}
            }
        }
        shape.classify();
        shape
    }

    /// Lets every input of type `ID` know the kind of record that it means.
    pub(super) fn name_ids(&mut self, kind: IdKinds) {
        let name_all = |of: &str, inputs: &mut Named<Input>| {
            for (name, input) in inputs.iter_mut().filter(|(_, input)| is_id(&input.ty.base)) {
                input.id = kind(of, name);
            }
        };
        for (name, definition) in &mut self.types {
            match definition {
                Definition::Fields { fields, .. } => {
                    for (name, field) in fields {
                        name_all(name, &mut field.arguments);
                    }
                }
                Definition::Input { fields, .. } => name_all(name, fields),
                _ => {}
            }
        }
    }

    /// Lets every scalar of ours know its judge.
    pub(super) fn judge_scalars(&mut self, judges: Judges) {
        for (name, definition) in &mut self.types {
            if let Definition::Scalar(judge) = definition {
                *judge = judges(name);
            }
        }
    }

    /// Tells leaves and connections from objects, once all types are known.
    fn classify(&mut self) {
        let mut leaves = HashSet::new();
        let mut connections = HashSet::new();
        for (name, definition) in &self.types {
            match definition {
                Definition::Fields { connection: true, .. } => drop(connections.insert(name.clone())),
                Definition::Fields { .. } | Definition::Union => {}
                _ => drop(leaves.insert(name.clone())),
            }
        }
        for definition in self.types.values_mut() {
            let Definition::Fields { fields, connection } = definition else {
                continue;
            };
            for (name, field) in fields {
                field.kind = match &**name {
                    _ if leaves.contains(&field.of) || scalar(&field.of).is_some() => Kind::Leaf,
                    "edges" if *connection => Kind::Edges,
                    "nodes" if *connection => Kind::Nodes,
                    _ if connections.contains(&field.of) => Kind::Connection,
                    _ => field.kind,
                };
            }
        }
    }

    /// The type at the root of an operation.
    pub(super) fn root(&self, kind: OperationType) -> Option<&str> {
        match kind {
            OperationType::Query => Some(&self.query),
            OperationType::Mutation => self.mutation.as_deref(),
            OperationType::Subscription => self.subscription.as_deref(),
        }
    }

    pub(super) fn field(&self, parent: &str, name: &str) -> Option<&Field> {
        match self.types.get(parent)? {
            Definition::Fields { fields, .. } => fields.get(name),
            _ => None,
        }
    }

    pub(super) fn input(&self, name: &str) -> InputType<'_> {
        if let Some(scalar) = scalar(name) {
            return InputType::Scalar(scalar);
        }
        match self.types.get(name) {
            Some(Definition::Enum(values)) => InputType::Enum(values),
            Some(Definition::Input { fields, one_of }) => InputType::Object {
                fields,
                one_of: *one_of,
            },
            Some(Definition::Scalar(judge)) => InputType::Custom(*judge),
            _ => InputType::Custom(None),
        }
    }
}

impl Scalar {
    /// Whether a number is a value of this scalar.
    pub(super) fn takes_number(self, number: &Number) -> bool {
        match self {
            Scalar::Int => number
                .as_i64()
                .is_some_and(|number| i32::try_from(number).is_ok()),
            Scalar::Float => true,
            Scalar::Id => number.is_i64() || number.is_u64(),
            Scalar::String | Scalar::Boolean => false,
        }
    }
}

fn is_id(base: &BaseType) -> bool {
    match base {
        BaseType::Named(name) => name == "ID",
        BaseType::List(inner) => is_id(&inner.base),
    }
}

fn scalar(name: &str) -> Option<Scalar> {
    Some(match name {
        "Int" => Scalar::Int,
        "Float" => Scalar::Float,
        "String" => Scalar::String,
        "Boolean" => Scalar::Boolean,
        "ID" => Scalar::Id,
        _ => return None,
    })
}

fn fields(definitions: Vec<Positioned<FieldDefinition>>) -> Definition {
    let fields: Named<Field> = definitions
        .into_iter()
        .map(|field| {
            let field = field.node;
            let mut base = &field.ty.node.base;
            let kind = match base {
                BaseType::List(_) => Kind::List,
                BaseType::Named(_) => Kind::Object,
            };
            let of = loop {
                match base {
                    BaseType::List(inner) => base = &inner.base,
                    BaseType::Named(name) => break Box::from(name.as_str()),
                }
            };
            let arguments = inputs(field.arguments);
            (field.name.node.as_str().into(), Field { of, kind, arguments })
        })
        .collect();
    Definition::Fields {
        connection: fields.contains_key("pageInfo") && fields.contains_key("edges"),
        fields,
    }
}

fn inputs(definitions: Vec<Positioned<InputValueDefinition>>) -> Named<Input> {
    definitions
        .into_iter()
        .map(|input| {
            let default = input.node.default_value.map(|value| value.node);
            (
                input.node.name.node.as_str().into(),
                Input {
                    ty: input.node.ty.node,
                    default,
                    id: None,
                },
            )
        })
        .collect()
}
