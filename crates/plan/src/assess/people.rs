//! Who answers for a service, and whether they can be reached when one way is down as well.

use super::Context;
use crate::{document::Service, report::Report};

/// Finds contacts that can be reached in one way only.
pub(super) fn check_contacts(context: &Context<'_>, report: &mut Report<'_>) {
    for contact in context.plan.contacts.iter().filter(|contact| contact.ways.len() < 2) {
        let message = match contact.ways.keys().next() {
            Some(way) => format!("'{}' can be reached by {way} only", contact.name),
            None => format!("'{}' cannot be reached at all", contact.name),
        };
        let help = "write two ways, such as email and phone: the disaster may take one";
        report.add("contact-missing", &format!("contacts.{}", contact.name), message, help);
    }
}

/// Finds services that nobody answers for, or for which nobody is called.
pub(super) fn check_service(service: &Service, path: &str, report: &mut Report<'_>) {
    if service.owner.is_none() {
        let message = format!("nobody answers for '{}'", service.name);
        report.add("owner-missing", path, message, "write owner: WHO");
    }
    if service.contacts.is_empty() {
        let message = format!("nobody is called when '{}' is down", service.name);
        report.add("contact-missing", path, message, "write contacts: [NAME]");
    }
}
