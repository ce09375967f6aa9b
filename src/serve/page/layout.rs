//! The frame of every page.

use super::html::Html;

/// Makes a page as wide as the screen, in the system's light or dark color scheme.
pub(crate) fn fit_to_screen(html: &mut Html) {
    html.void(
        "meta",
        &[
            ("name", &"viewport"),
            ("content", &"width=device-width, initial-scale=1"),
        ],
    );
    html.void(
        "meta",
        &[("name", &"color-scheme"), ("content", &"light dark")],
    );
}

/// A whole page with this title, whose content goes into `main`. `live` pages are updated by the script.
pub(super) fn page(title: &str, is_live: bool, content: impl FnOnce(&mut Html)) -> String {
    Html::document(|html| {
        html.element("html", &[("lang", &"en")], |html| {
            html.element("head", &[], |html| {
                html.void("meta", &[("charset", &"utf-8")]);
                fit_to_screen(html);
                html.element("title", &[], |html| {
                    html.text(title);
                    html.text(" – lagwise");
                });
                html.void("link", &[("rel", &"icon"), ("href", &"/assets/icon.svg")]);
                html.void(
                    "link",
                    &[("rel", &"stylesheet"), ("href", &"/assets/page.css")],
                );
                html.element(
                    "script",
                    &[("type", &"module"), ("src", &"/assets/page.js")],
                    |_| {},
                );
            });
            html.line();
            html.element("body", &[], |html| {
                let live = if is_live { "yes" } else { "no" };
                // The script shows here that the values are not live.
                html.element(
                    "p",
                    &[("id", &"notice"), ("role", &"status"), ("hidden", &"")],
                    |_| {},
                );
                html.element("main", &[("id", &"page"), ("data-live", &live)], content);
                html.line();
                html.element("footer", &[], |html| {
                    html.text("lagwise ");
                    html.text(env!("CARGO_PKG_VERSION"));
                    html.text(" · read-only · ");
                    html.element("span", &[("id", &"live")], |html| {
                        html.text("reload for newer values");
                    });
                    html.element("details", &[("id", &"keys")], |html| {
                        html.text_element("summary", &[], "keyboard");
                        html.element("ul", &[], |html| {
                            for (key, action) in [
                                ("/", "search"),
                                ("j k", "next and previous HPA"),
                                ("Enter", "open the HPA"),
                                ("Esc", "back to all HPAs"),
                                ("p", "pause live updates"),
                            ] {
                                html.element("li", &[], |html| {
                                    html.text_element("kbd", &[], key);
                                    html.text(" ");
                                    html.text(action);
                                });
                            }
                        });
                    });
                });
            });
        });
        html.line();
    })
}

/// A page that only has a message.
pub(super) fn message(title: &str, text: &str) -> String {
    page(title, false, |html| {
        html.text_element("h1", &[], title);
        html.text_element("p", &[], text.trim_end());
        html.element("p", &[], |html| {
            html.text_element("a", &[("href", &"/")], "All HPAs");
        });
    })
}
