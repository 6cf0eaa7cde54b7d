//! The name that was meant.

/// `; did you mean ...?` if one of the known names is near, else nothing.
pub(crate) fn hint<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let nearest = known
        .map(|known| (strsim::damerau_levenshtein(name, known), known))
        .min();
    match nearest {
        Some((distance, known)) if distance <= name.chars().count() / 3 + 1 => {
            format!("; did you mean `{known}`?")
        }
        _ => String::new(),
    }
}
