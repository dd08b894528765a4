//! One figure of the benchmark, as a line of a table or of JSON.

/// One line of the table.
pub(crate) struct Row {
    pub(crate) links: u32,
    pub(crate) what: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) goal: Option<u32>,
    pub(crate) ours: f64,
    pub(crate) other: Option<f64>,
}

impl Row {
    pub(crate) fn markdown(&self) -> String {
        let Row { what, unit, ours, .. } = self;
        let goal = self.goal.map_or("–".into(), |goal| format!("≤ {goal} {unit}"));
        let other = self.other.map_or("–".into(), |other| format!("{other:.1} {unit}"));
        let ratio = self.ratio().map_or("–".into(), |ratio| format!("{ratio:.2}"));
        let links = thousands(self.links);
        format!("| {links} | {what} | {goal} | {ours:.1} {unit} | {other} | {ratio} |")
    }

    pub(crate) fn json(&self) -> String {
        let Row { links, what, unit, ours, .. } = self;
        let goal = self.goal.map_or("null".into(), |goal| goal.to_string());
        let other = self.other.map_or("null".into(), |other| format!("{other:.2}"));
        let ratio = self.ratio().map_or("null".into(), |ratio| format!("{ratio:.3}"));
        format!(
            "{{\"links\": {links}, \"what\": \"{what}\", \"unit\": \"{unit}\", \"goal\": {goal}, \
             \"systole\": {ours:.2}, \"quad_wheel\": {other}, \"ratio\": {ratio}}}"
        )
    }

    fn ratio(&self) -> Option<f64> {
        self.other.filter(|other| *other > 0.0).map(|other| self.ours / other)
    }
}

fn thousands(number: u32) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|group| str::from_utf8(group).ok()).collect();
    groups.join(",")
}
