//! Classes of data: what they bring to the lines that protect it, and to the repositories.
//!
//! A class is a floor. What it asks for comes on top of what a line says, so that no line can
//! weaken it: the repositories of both receive copies, what either keeps is kept, and of two
//! periods the shorter one holds. What cannot be added (a copy that nobody can change, a region)
//! is not brought but judged, in `assess`.

use crate::document::{DataClass, DataItem, Hooks, Keep, Plan, Protection, Service, Verify};

impl Plan {
    /// A class by name.
    #[must_use]
    pub fn class(&self, name: &str) -> Option<&DataClass> {
        self.classes.iter().find(|class| class.name == name)
    }

    /// The class of a data item.
    #[must_use]
    pub fn class_of(&self, item: &DataItem) -> Option<&DataClass> {
        self.class(item.class.as_deref()?)
    }

    /// Adds to each line the repositories that classes of its data ask for. A line's data stays
    /// together: it is copied as the strictest of it asks for.
    pub(crate) fn bring_copies_of_classes(&mut self) {
        let classes = std::mem::take(&mut self.classes);
        for service in &mut self.services {
            for line in &mut service.protect {
                bring_copies(&classes, &service.data, line);
            }
        }
        self.classes = classes;
    }

    /// What is kept of a data item in a repository: what any of these keeps. `None` keeps all of
    /// it, since a line that writes it there has no `keep`.
    #[must_use]
    pub fn keeps<'p>(
        &'p self,
        service: &'p Service,
        item: &'p DataItem,
        repository: &str,
    ) -> Option<Vec<&'p Keep>> {
        let lines = service.protect.iter().filter(|line| {
            let is_here = line.to == repository || line.copy.iter().any(|copy| copy == repository);
            is_here && line.data.contains(&item.name)
        });
        let mut keeps: Vec<&Keep> = lines.map(|line| &line.keep).collect();
        if keeps.is_empty() || keeps.iter().any(|keep| keep.is_everything()) {
            return None;
        }
        let of_class = self.class_of(item).map(|class| &class.keep);
        keeps.extend(of_class.filter(|keep| !keep.is_everything()));
        Some(keeps)
    }

    /// What runs around the snapshots of some data of a line: what classes bring, in the order of the
    /// plan, each with its name; then what the line itself says.
    #[must_use]
    pub fn hooks_of<'p>(
        &'p self,
        service: &Service,
        line: &'p Protection,
        data: &[String],
    ) -> Vec<(Option<&'p str>, &'p Hooks)> {
        let items = || data.iter().filter_map(|name| service.data(name));
        let is_asked = |class: &&DataClass| {
            items().any(|item| item.class.as_deref() == Some(class.name.as_str()))
        };
        let classes = self.classes.iter().filter(is_asked);
        let brought = classes.map(|class| (Some(class.name.as_str()), &class.hooks));
        brought.chain([(None, &line.hooks)]).collect()
    }

    /// How often a repository is read back, and the classes that ask for it sooner than the
    /// repository itself.
    #[must_use]
    pub fn verify_of(&self, repository: &str) -> Option<(Verify, Vec<&str>)> {
        let own = self.repository(repository)?.verify;
        let mut classes: Vec<(&str, Verify)> = Vec::new();
        for service in &self.services {
            for line in service.protect.iter().filter(|line| {
                line.to == repository || line.copy.iter().any(|copy| copy == repository)
            }) {
                let items = line.data.iter().filter_map(|name| service.data(name));
                let its = items.filter_map(|item| self.class_of(item));
                classes.extend(its.filter_map(|class| Some((&*class.name, class.verify?))));
            }
        }
        classes.retain(|(_, verify)| own.is_none_or(|own| verify.within < own.within));
        let within =
            classes.iter().map(|(_, verify)| verify.within).chain(own.map(|own| own.within));
        let budgets = classes.iter().filter_map(|(_, verify)| verify.budget);
        let budget = own.and_then(|own| own.budget).or(budgets.max());
        let verify = Verify { within: within.min()?, budget };
        let mut names: Vec<&str> = classes.into_iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        names.dedup();
        Some((verify, names))
    }
}

fn bring_copies(classes: &[DataClass], items: &[DataItem], line: &mut Protection) {
    let of_line = items.iter().filter(|item| line.data.contains(&item.name));
    let names: Vec<&String> = of_line.filter_map(|item| item.class.as_ref()).collect();
    for class in classes.iter().filter(|class| names.contains(&&class.name)) {
        for copy in class.copy.iter().filter(|copy| **copy != line.to) {
            if !line.copy.contains(copy) {
                line.copy.push(copy.clone());
                line.copy_of_class.push((copy.clone(), class.name.clone()));
            }
        }
    }
}
