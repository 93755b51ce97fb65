package main

import (
	"context"
	"fmt"

	"github.com/launchdarkly/go-sdk-common/v3/ldcontext"
	"github.com/launchdarkly/go-sdk-common/v3/ldlog"
	"github.com/launchdarkly/go-sdk-common/v3/ldvalue"
	"github.com/launchdarkly/go-server-sdk-evaluation/v3/ldbuilders"
	"github.com/launchdarkly/go-server-sdk-evaluation/v3/ldmodel"
	ld "github.com/launchdarkly/go-server-sdk/v7"
	"github.com/launchdarkly/go-server-sdk/v7/ldcomponents"
	"github.com/launchdarkly/go-server-sdk/v7/testhelpers/ldtestdata"
	"github.com/open-feature/flagd/core/pkg/evaluator"
	"github.com/open-feature/flagd/core/pkg/logger"
	"github.com/open-feature/flagd/core/pkg/store"
	"github.com/open-feature/flagd/core/pkg/sync"
	"github.com/open-feature/go-sdk/openfeature"
	"github.com/open-feature/go-sdk/openfeature/memprovider"
	"go.uber.org/zap"
)

const targetingKey = "targetingKey"

// anyContext returns the context that flagd and OpenFeature take.
func (u *user) anyContext() map[string]any {
	return map[string]any{
		targetingKey: u.ID, emailKey: u.Email, countryKey: u.Country, planKey: u.Plan,
		versionKey: u.Version, ageKey: u.Age, betaKey: u.Beta,
	}
}

// flagdSource names where flagd's flags are from.
const flagdSource = "bench"

// newFlagd returns flagd's evaluator with its store, without a log.
func newFlagd(document string) (*evaluator.JSON, error) {
	silent := logger.NewLogger(zap.NewNop(), false)
	flagStore, err := store.NewStore(silent, []string{flagdSource})
	if err != nil {
		return nil, fmt.Errorf("store of flagd: %w", err)
	}
	flagd := evaluator.NewJSON(silent, flagStore)
	if err := flagd.SetState(sync.DataSync{FlagData: document, Source: flagdSource}); err != nil {
		return nil, fmt.Errorf("state of flagd: %w", err)
	}
	return flagd, nil
}

func flagdContenders(ctx context.Context, c *evaluateCase, flagd *evaluator.JSON) []contender {
	resolve := func(attributes map[string]any) string {
		value, _, _, _, err := flagd.ResolveStringValue(ctx, "", c.flag, attributes)
		if err != nil {
			return err.Error()
		}
		return value
	}
	return []contender{
		{name: "flagd core 0.16.0", decide: func(n int, u *user) (last string) {
			for range n {
				last = resolve(u.anyContext())
			}
			return last
		}},
		{name: "flagd core, context made once", decide: func(n int, u *user) (last string) {
			attributes := u.anyContext()
			for range n {
				last = resolve(attributes)
			}
			return last
		}},
	}
}

// newLaunchDarkly returns a client without network, events and log.
func newLaunchDarkly(cases []evaluateCase, fillers int) (*ld.LDClient, error) {
	source := ldtestdata.DataSource()
	for i := range cases {
		source.UsePreconfiguredFlag(launchDarklyFlag(&cases[i]))
	}
	for i := range fillers {
		source.UsePreconfiguredFlag(ldbuilders.NewFlagBuilder(fillerKey(i)).On(true).
			Variations(ldvalue.Bool(true), ldvalue.Bool(false)).FallthroughVariation(1).Build())
	}
	client, err := ld.MakeCustomClient("sdk-bench", ld.Config{
		DataSource:       source,
		Events:           ldcomponents.NoEvents(),
		Logging:          ldcomponents.Logging().MinLevel(ldlog.None),
		DiagnosticOptOut: true,
	}, 0)
	if err != nil {
		return nil, fmt.Errorf("client of LaunchDarkly: %w", err)
	}
	return client, nil
}

// launchDarklyFlag returns the flag of a case in the rules of LaunchDarkly.
func launchDarklyFlag(c *evaluateCase) ldmodel.FeatureFlag {
	b := ldbuilders.NewFlagBuilder(c.flag).On(true).Salt("holdfast").FallthroughVariation(len(c.variants) - 1)
	var values []ldvalue.Value
	for _, v := range c.variants {
		values = append(values, ldvalue.String(v))
	}
	b.Variations(values...)
	if c.launchDarkly != nil {
		c.launchDarkly(b)
	}
	return b.Build()
}

func (u *user) launchDarklyContext() ldcontext.Context {
	return ldcontext.NewBuilder(u.ID).
		SetString(emailKey, u.Email).SetString(countryKey, u.Country).SetString(planKey, u.Plan).
		SetString(versionKey, u.Version).SetInt(ageKey, int(u.Age)).SetBool(betaKey, u.Beta).Build()
}

func launchDarklyContenders(c *evaluateCase, client *ld.LDClient) []contender {
	resolve := func(who ldcontext.Context) string {
		value, err := client.StringVariation(c.flag, who, "")
		if err != nil {
			return err.Error()
		}
		return value
	}
	return []contender{
		{name: "LaunchDarkly 7.14.6, context made once", ownHash: true, decide: func(n int, u *user) (last string) {
			who := u.launchDarklyContext()
			for range n {
				last = resolve(who)
			}
			return last
		}},
		{name: "LaunchDarkly", ownHash: true, decide: func(n int, u *user) (last string) {
			for range n {
				last = resolve(u.launchDarklyContext())
			}
			return last
		}},
	}
}

// newInMemory returns OpenFeature's in-memory provider, where a rule is a function
// of the program.
func newInMemory(cases []evaluateCase, fillers int) *memprovider.InMemoryProvider {
	all := map[string]memprovider.InMemoryFlag{}
	for i := range cases {
		c := &cases[i]
		flag := memprovider.InMemoryFlag{Key: c.flag, State: memprovider.Enabled, DefaultVariant: c.variants[len(c.variants)-1], Variants: map[string]any{}}
		for _, v := range c.variants {
			flag.Variants[v] = v
		}
		if c.targeting != "" {
			rule := func(this memprovider.InMemoryFlag, who openfeature.FlattenedContext) (any, openfeature.ProviderResolutionDetail) {
				variant := c.byContext(who)
				return this.Variants[variant], openfeature.ProviderResolutionDetail{Reason: openfeature.TargetingMatchReason, Variant: variant}
			}
			flag.ContextEvaluator = &rule
		}
		all[c.flag] = flag
	}
	for i := range fillers {
		all[fillerKey(i)] = memprovider.InMemoryFlag{
			Key: fillerKey(i), State: memprovider.Enabled, DefaultVariant: "off",
			Variants: map[string]any{"on": true, "off": false},
		}
	}
	return memprovider.NewInMemoryProvider(all)
}

func inMemoryContender(ctx context.Context, c *evaluateCase, provider *memprovider.InMemoryProvider) contender {
	return contender{name: "OpenFeature in memory 1.20.0", decide: func(n int, u *user) (last string) {
		for range n {
			d := provider.StringEvaluation(ctx, c.flag, "", u.anyContext())
			if last = d.Value; d.ResolutionError != (openfeature.ResolutionError{}) {
				last = d.ResolutionError.Error()
			}
		}
		return last
	}}
}
