use super::*;

fn parse(text: &str) -> Result<Vec<Profile>, String> {
    let file = super::parse(&format!("apiVersion: {API_VERSION}\nkind: {KIND}\n{text}"))?;
    profiles(&file)
}

fn rule<'p>(profile: &'p Profile, name: &str) -> &'p Enabled {
    profile.rules.iter().find(|rule| rule.plugin.name() == name).unwrap()
}

#[test]
fn wrong_fields_are_named() {
    let cases = [
        ("profile: []", "line 3: profile: unknown field"),
        ("podInitialBackoffSeconds: 0", "podInitialBackoffSeconds"),
        ("podInitialBackoffSeconds: 5\npodMaxBackoffSeconds: 1", "line 4: podMaxBackoffSeconds"),
        ("percentageOfNodesToScore: 101", "percentageOfNodesToScore"),
        ("leaderElection: {leaseDuration: 1s}", "leaderElection.leaseDuration"),
        (
            "profiles: [{schedulerName: a}, {schedulerName: a}]",
            "line 3: profiles[1].schedulerName: Duplicate value: \"a\"",
        ),
        ("profiles: [{plugins: {filters: {}}}]", "profiles[0].plugins: unknown field \"filters\""),
        (
            "profiles: [{plugins: {score: {enabled: [{name: Luck}]}}}]",
            "profiles[0].plugins.score.enabled[0].name: plugin \"Luck\" does not exist",
        ),
        ("profiles: [{plugins: {score: {enabled: [{nam: Luck}]}}}]", "nam"),
        (
            "profiles: [{pluginConfig: [{name: InterPodAffinity, args: {hardPodAffinityWeight: 101}}]}]",
            "profiles[0].pluginConfig.InterPodAffinity: hardPodAffinityWeight: Invalid value: 101: not in valid range [0-100]",
        ),
        ("profiles: [{plugins: {bind: {disabled: [{name: '*'}]}}}]", "plugins.bind.disabled[0]"),
        ("extenders: [{urlPrefix: 'https://x', nodeCacheCapable: true}]", "extenders[0].urlPrefix"),
        ("extenders: [{urlPrefix: 'http://x', bindVerb: b, nodeCacheCapable: true}]", "extenders[0].bindVerb"),
    ];
    for (text, expected) in cases {
        let error = parse(text).err().unwrap_or_default();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn plugins_are_switched_and_weighed() {
    let profiles = parse(
        "profiles:\n- schedulerName: bins\n  plugins:\n    multiPoint: {disabled: [{name: ImageLocality}, {name: DefaultPreemption}]}\n    \
         score: {disabled: [{name: '*'}], enabled: [{name: NodeResourcesFit, weight: 7}]}\n    \
         filter: {disabled: [{name: NodePorts}]}\n- schedulerName: default-scheduler\n",
    )
    .unwrap();
    let [bins, default] = &profiles[..] else { panic!("two profiles") };
    assert!(!rule(bins, "ImageLocality").scores && !bins.preempts && !rule(bins, "NodePorts").filters);
    assert!(!rule(bins, "TaintToleration").scores && rule(bins, "TaintToleration").filters);
    assert_eq!((rule(bins, "NodeResourcesFit").scores, rule(bins, "NodeResourcesFit").weight), (true, 7));
    assert!(default.preempts && rule(default, "ImageLocality").scores);
    assert_eq!(rule(default, "TaintToleration").weight, 3);
}

#[test]
fn without_a_file_there_is_the_default_profile() {
    let profiles = profiles(&File::default()).unwrap();
    assert_eq!(profiles.len(), 1);
    assert_eq!(profiles[0].name, DEFAULT_SCHEDULER);
    assert_eq!(profiles[0].rules.len(), plugins::ALL.len());
}
