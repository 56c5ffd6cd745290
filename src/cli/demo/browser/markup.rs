//! HTML, as far as pages with plain forms need it: tags with attributes, and text.

/// A piece of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// A start tag; name and attribute names in lower case, values decoded.
    Open { name: String, attributes: Vec<(String, String)> },
    /// An end tag.
    Close { name: String },
    /// Text between tags, decoded.
    Text(String),
}

/// The pieces of `html`, in order. Comments, declarations, scripts and styles are left out; what is malformed is read as text.
pub(super) fn pieces(html: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut rest = html;
    while let Some(start) = rest.find('<') {
        push_text(&mut pieces, &rest[..start]);
        rest = &rest[start..];
        if let Some(comment) = rest.strip_prefix("<!--") {
            rest = comment.split_once("-->").map_or("", |(_, after)| after);
        } else if rest.starts_with("<!") || rest.starts_with("<?") {
            rest = rest.split_once('>').map_or("", |(_, after)| after);
        } else if let Some((piece, after)) = tag(rest) {
            rest = match &piece {
                Piece::Open { name, .. } if name == "script" || name == "style" => after_raw_text(after, name),
                _ => after,
            };
            pieces.push(piece);
        } else {
            push_text(&mut pieces, "<");
            rest = &rest[1..];
        }
    }
    push_text(&mut pieces, rest);
    pieces
}

/// The value of the attribute called `name`.
pub(super) fn attribute<'a>(attributes: &'a [(String, String)], name: &str) -> Option<&'a str> {
    attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

fn push_text(pieces: &mut Vec<Piece>, text: &str) {
    if !text.is_empty() {
        pieces.push(Piece::Text(decoded(text)));
    }
}

fn after_raw_text<'a>(text: &'a str, name: &str) -> &'a str {
    let end = format!("</{name}");
    text.find(&end).map_or("", |position| &text[position..])
}

/// The tag at the start of `text`, which begins with `<`, and what follows it.
fn tag(text: &str) -> Option<(Piece, &str)> {
    let inner = &text[1..];
    let (closing, inner) = inner.strip_prefix('/').map_or((false, inner), |inner| (true, inner));
    let length = inner.find(|character: char| !character.is_ascii_alphanumeric() && character != '-').unwrap_or(inner.len());
    if !inner.starts_with(|character: char| character.is_ascii_alphabetic()) {
        return None;
    }
    let name = inner[..length].to_ascii_lowercase();
    let mut rest = &inner[length..];
    let mut attributes = Vec::new();
    loop {
        rest = rest.trim_start_matches(|character: char| character.is_ascii_whitespace() || character == '/');
        if let Some(after) = rest.strip_prefix('>') {
            let piece = if closing { Piece::Close { name } } else { Piece::Open { name, attributes } };
            return Some((piece, after));
        }
        let (attribute, after) = read_attribute(rest)?;
        attributes.push(attribute);
        rest = after;
    }
}

fn read_attribute(text: &str) -> Option<((String, String), &str)> {
    let length = text.find(|character: char| character.is_ascii_whitespace() || matches!(character, '=' | '>' | '/'))?;
    if length == 0 {
        return None;
    }
    let name = text[..length].to_ascii_lowercase();
    let rest = text[length..].trim_start();
    let Some(rest) = rest.strip_prefix('=').map(str::trim_start) else {
        return Some(((name, String::new()), &text[length..]));
    };
    let (value, after) = match rest.chars().next()? {
        quote @ ('"' | '\'') => rest[1..].split_once(quote)?,
        _ => rest.split_at(rest.find(|character: char| character.is_ascii_whitespace() || character == '>')?),
    };
    Some(((name, decoded(value)), after))
}

/// `text` with its character references resolved; an unknown one stays as it is.
fn decoded(text: &str) -> String {
    let mut decoded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('&') {
        decoded.push_str(&rest[..start]);
        rest = &rest[start..];
        let reference = rest[1..].split_once(';').and_then(|(name, after)| Some((character(name)?, after)));
        if let Some((character, after)) = reference {
            decoded.push(character);
            rest = after;
        } else {
            decoded.push('&');
            rest = &rest[1..];
        }
    }
    decoded.push_str(rest);
    decoded
}

fn character(name: &str) -> Option<char> {
    if let Some(number) = name.strip_prefix('#') {
        let code = number.strip_prefix(['x', 'X']).map_or_else(|| number.parse().ok(), |digits| u32::from_str_radix(digits, 16).ok());
        return code.and_then(char::from_u32);
    }
    match name {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        "nbsp" => Some('\u{a0}'),
        "middot" => Some('·'),
        "rarr" => Some('→'),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(name: &str, attributes: &[(&str, &str)]) -> Piece {
        let attributes = attributes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Piece::Open { name: name.to_owned(), attributes }
    }

    fn text(text: &str) -> Piece {
        Piece::Text(text.to_owned())
    }

    #[test]
    fn tags_attributes_and_text_are_told_apart() {
        let html = r#"<!doctype html><!-- <b> --><INPUT name=a value='x > "y"' required/>1 &lt; 2 < 3<script>"<form>"</script>"#;
        let expected = vec![
            open("input", &[("name", "a"), ("value", "x > \"y\""), ("required", "")]),
            text("1 < 2 "),
            text("<"),
            text(" 3"),
            open("script", &[]),
            Piece::Close { name: "script".to_owned() },
        ];
        assert_eq!(pieces(html), expected);
    }

    #[test]
    fn character_references_are_resolved_once() {
        assert_eq!(decoded("&amp;lt; &#39;&#x27;&quot; &unknown; &#xD800; &"), "&lt; ''\" &unknown; &#xD800; &");
    }

    #[test]
    fn what_never_ends_is_text() {
        for html in ["<a href=\"", "<a href", "<", "</", "<!--", "<a =b>", "&#"] {
            let pieces = pieces(html);
            assert!(pieces.iter().all(|piece| matches!(piece, Piece::Text(_))), "{html}: {pieces:?}");
        }
    }
}
