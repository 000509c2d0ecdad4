//! Rows in columns, as kubectl prints them: three spaces between, nothing at the end of a line.

/// Lines of rows; a row may have fewer fields than others.
pub(crate) fn columns(rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        widths.resize(widths.len().max(row.len()), 0);
        for (width, field) in widths.iter_mut().zip(row) {
            *width = (*width).max(field.chars().count());
        }
    }
    let line = |row: &Vec<String>| {
        let fields: Vec<String> = row.iter().zip(&widths).map(|(field, w)| format!("{field:w$}")).collect();
        format!("{}\n", fields.join("   ").trim_end())
    };
    rows.iter().map(line).collect()
}

/// A row.
pub(crate) fn row<const N: usize>(fields: [&str; N]) -> Vec<String> {
    fields.map(str::to_owned).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_column_is_as_wide_as_its_widest_field() {
        let rows = [row(["A", "LONG", "C"]), row(["äöü", "b", ""]), row(["x"])];
        assert_eq!(columns(&rows), "A     LONG   C\näöü   b\nx\n");
        assert_eq!(columns(&[]), "");
    }
}
