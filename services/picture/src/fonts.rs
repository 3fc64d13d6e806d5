//! The letters of pictures that are pixels: a font that is part of this crate, so that they are the same on every machine.

use std::sync::{Arc, LazyLock};

use fontdb::Database;
use resvg::usvg::FontResolver;

/// The family that pictures ask for first.
pub(crate) const FAMILY: &str = "Inter";

/// What `fonts/make` makes.
const FILES: [&[u8]; 2] = [include_bytes!("../fonts/Inter-Regular.otf"), include_bytes!("../fonts/Inter-SemiBold.otf")];

/// The fonts of this crate.
pub(crate) fn embedded() -> Arc<Database> {
    static FONTS: LazyLock<Arc<Database>> = LazyLock::new(|| {
        let mut fonts = Database::new();
        for file in FILES {
            fonts.load_font_data(file.to_vec());
        }
        // Whatever is asked for and not there.
        fonts.set_serif_family(FAMILY);
        fonts.set_sans_serif_family(FAMILY);
        Arc::new(fonts)
    });
    Arc::clone(&FONTS)
}

/// Letters that the fonts of this crate lack, of scripts other than Latin, Greek and Cyrillic, come from the fonts of this
/// machine, where it has them; where not, an empty box stands for each.
pub(crate) fn resolver() -> FontResolver<'static> {
    let by_letter = FontResolver::default_fallback_selector();
    FontResolver {
        select_fallback: Box::new(move |letter, used, fonts| {
            if fonts.len() == embedded().len() {
                Arc::make_mut(fonts).load_system_fonts();
            }
            by_letter(letter, used, fonts)
        }),
        ..FontResolver::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fonts_are_those_that_pictures_ask_for() {
        let weights: Vec<u16> = embedded().faces().map(|face| face.weight.0).collect();
        assert_eq!(weights, [400, 600]);
        assert!(embedded().faces().all(|face| face.families[0].0 == FAMILY));
        assert!(FILES.iter().map(|file| file.len()).sum::<usize>() < 120_000);
    }
}
