//! What the inference replicas serve, taken together.

use chorale_proto::v1::{DescribeInferenceResponse, ServedModel};

/// What one replica serves, the model with the largest weight first; none if it names no model. A replica of an older release
/// has one model.
pub(crate) fn served_by(description: DescribeInferenceResponse) -> Option<Vec<ServedModel>> {
    let DescribeInferenceResponse { model, models, .. } = description;
    if !models.is_empty() {
        return Some(models);
    }
    model.map(|model| vec![ServedModel { model: Some(model), weight: 1 }])
}

/// What most replicas serve. While a set is rolled out, all feature replicas that see the same inference replicas say the same,
/// and say the new set once it has the majority; of two sets on equally many replicas, which one is said is left to their
/// versions.
pub(crate) fn most_common(sets: Vec<Vec<ServedModel>>) -> Option<Vec<ServedModel>> {
    let shares = |set: &[ServedModel]| -> Vec<(String, u32)> {
        let version = |served: &ServedModel| served.model.as_ref().map(|model| model.version.clone());
        set.iter().map(|served| (version(served).unwrap_or_default(), served.weight)).collect()
    };
    let of_each: Vec<_> = sets.iter().map(|set| shares(set)).collect();
    let count = |shares: &Vec<_>| of_each.iter().filter(|other| *other == shares).count();
    let best = of_each.iter().enumerate().max_by_key(|(_, shares)| (count(shares), *shares))?.0;
    sets.into_iter().nth(best)
}

#[cfg(test)]
mod tests {
    use chorale_proto::v1::Model;

    use super::*;

    fn set(models: &[(&str, u32)]) -> Vec<ServedModel> {
        let served = |&(version, weight): &(&str, u32)| ServedModel {
            model: Some(Model { version: version.to_owned(), ..Model::default() }),
            weight,
        };
        models.iter().map(served).collect()
    }

    #[test]
    fn the_set_on_most_replicas_is_served() {
        let (old, new) = (set(&[("a", 1)]), set(&[("a", 9), ("b", 1)]));
        assert_eq!(most_common(vec![]), None);
        assert_eq!(most_common(vec![new.clone(), old.clone(), old.clone()]), Some(old.clone()));
        assert_eq!(most_common(vec![new.clone(), old.clone(), new.clone()]), Some(new.clone()));
        // With equally many, whatever the order is, always the same.
        let tie = most_common(vec![new.clone(), old.clone()]);
        assert_eq!(most_common(vec![old, new]), tie);
    }

    #[test]
    fn a_replica_of_an_older_release_serves_one_model() {
        let model = Model { version: "a".to_owned(), ..Model::default() };
        let older = DescribeInferenceResponse { model: Some(model), ..DescribeInferenceResponse::default() };
        assert_eq!(served_by(older), Some(set(&[("a", 1)])));
        assert_eq!(served_by(DescribeInferenceResponse::default()), None);
    }
}
