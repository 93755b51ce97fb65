package main

import (
	"slices"
	"strconv"
	"strings"

	"github.com/launchdarkly/go-sdk-common/v3/ldattr"
	"github.com/launchdarkly/go-sdk-common/v3/ldvalue"
	"github.com/launchdarkly/go-server-sdk-evaluation/v3/ldbuilders"
	"github.com/launchdarkly/go-server-sdk-evaluation/v3/ldmodel"
	"github.com/open-feature/go-sdk/openfeature"
	"github.com/twmb/murmur3"
)

// user is what an application knows of whom it decides for. Every contender makes
// its own kind of context of it.
type user struct {
	ID, Email, Country, Plan, Version string
	Age                               int64
	Beta                              bool
}

// evaluateUsers are whom decisions are compared for; the first is measured.
func evaluateUsers() []user {
	return []user{
		{ID: "user-4711", Email: "fish@example.com", Country: "DE", Plan: "gold", Version: "2.14.1", Age: 42, Beta: true},
		{ID: "user-1", Email: "bird@example.org", Country: "DE", Plan: "gold", Version: "2.4.0", Age: 17, Beta: true},
		{ID: "user-2", Email: "cat@example.com.au", Country: "DE", Plan: "platinum", Version: "2.3.9", Age: 64},
		{ID: "user-3", Email: "@example.com", Country: "FR", Plan: "gold", Version: "10.0.0", Age: 30, Beta: true},
		{ID: "user-4", Email: "example.com", Country: "DE", Plan: "basic", Version: "1.99.99", Age: 18, Beta: true},
		{ID: "user-5", Email: "Dog@Example.com", Country: "de", Plan: "platinum", Version: "2.4.1", Age: 19},
		{ID: "0", Email: "ox@example.com", Country: "", Plan: "", Version: "0.0.1", Age: 0},
	}
}

// evaluateCase is one flag that all contenders decide. Its values are their names.
type evaluateCase struct {
	name string
	// flag is the key.
	flag string
	// variants and targeting are those of the flagd definition.
	variants  []string
	targeting string
	// byHand decides as a program without flags does.
	byHand func(u *user) string
	// byContext is the same on OpenFeature's context.
	byContext func(who openfeature.FlattenedContext) string
	// launchDarkly adds rules that decide the same; the last variant is what
	// applies where no rule does.
	launchDarkly func(b *ldbuilders.FlagBuilder)
	// weights are of a split. LaunchDarkly, which has a hash of its own, is only
	// compared by them.
	weights []int
}

func evaluateCases() []evaluateCase {
	onOff := []string{"on", "off"}
	split := []string{"red", "green", "blue"}
	weights := []int{50, 30, 20}
	return []evaluateCase{
		{
			name: "no targeting", flag: "new-checkout", variants: []string{"on", "off"},
			byHand: func(*user) string { return "off" },
		},
		{
			name: "ends_with", flag: "staff-only", variants: onOff,
			targeting: `{"if":[{"ends_with":[{"var":"email"},"@example.com"]},"on","off"]}`,
			byHand: func(u *user) string {
				if strings.HasSuffix(u.Email, "@example.com") {
					return "on"
				}
				return "off"
			},
			byContext: func(who openfeature.FlattenedContext) string {
				if email, _ := who[emailKey].(string); strings.HasSuffix(email, "@example.com") {
					return "on"
				}
				return "off"
			},
			launchDarkly: func(b *ldbuilders.FlagBuilder) {
				b.AddRule(ldRule(0, ldbuilders.Clause(emailKey, ldmodel.OperatorEndsWith, ldvalue.String("@example.com"))))
			},
		},
		{
			name: "nested if", flag: "express-shipping", variants: []string{"on", "soft", "off"},
			targeting: `{"if":[{"==":[{"var":"country"},"DE"]},
				{"if":[{"in":[{"var":"plan"},["gold","platinum"]]},
					{"if":[{"and":[{">":[{"var":"age"},18]},{"==":[{"var":"beta"},true]}]},"on","soft"]},
					"off"]},
				"off"]}`,
			byHand: func(u *user) string {
				if u.Country == "DE" {
					if u.Plan == "gold" || u.Plan == "platinum" {
						if u.Age > 18 && u.Beta {
							return "on"
						}
						return "soft"
					}
				}
				return "off"
			},
			byContext: func(who openfeature.FlattenedContext) string {
				if country, _ := who[countryKey].(string); country == "DE" {
					if plan, _ := who[planKey].(string); plan == "gold" || plan == "platinum" {
						age, _ := who[ageKey].(int64)
						if beta, _ := who[betaKey].(bool); age > 18 && beta {
							return "on"
						}
						return "soft"
					}
				}
				return "off"
			},
			launchDarkly: func(b *ldbuilders.FlagBuilder) {
				country := ldbuilders.Clause(countryKey, ldmodel.OperatorIn, ldvalue.String("DE"))
				plan := ldbuilders.Clause(planKey, ldmodel.OperatorIn, ldvalue.String("gold"), ldvalue.String("platinum"))
				adult := ldbuilders.Clause(ageKey, ldmodel.OperatorGreaterThan, ldvalue.Int(18))
				beta := ldbuilders.Clause(betaKey, ldmodel.OperatorIn, ldvalue.Bool(true))
				b.AddRule(ldRule(0, country, plan, adult, beta)).AddRule(ldRule(1, country, plan))
			},
		},
		{
			name: "fractional", flag: "button-colour", variants: split, weights: weights,
			targeting: `{"fractional":[["red",50],["green",30],["blue",20]]}`,
			byHand:    func(u *user) string { return share("button-colour", u.ID) },
			byContext: func(who openfeature.FlattenedContext) string {
				id, _ := who[targetingKey].(string)
				return share("button-colour", id)
			},
			launchDarkly: func(b *ldbuilders.FlagBuilder) { b.Fallthrough(ldSplit(weights, "")) },
		},
		{
			name: "fractional, seed", flag: "banner-colour", variants: split, weights: weights,
			targeting: `{"fractional":[{"cat":[{"var":"$flagd.flagKey"},{"var":"email"}]},["red",50],["green",30],["blue",20]]}`,
			byHand:    func(u *user) string { return share("banner-colour", u.Email) },
			byContext: func(who openfeature.FlattenedContext) string {
				email, _ := who[emailKey].(string)
				return share("banner-colour", email)
			},
			launchDarkly: func(b *ldbuilders.FlagBuilder) { b.Fallthrough(ldSplit(weights, emailKey)) },
		},
		{
			name: "sem_ver", flag: "new-protocol", variants: onOff,
			targeting: `{"if":[{"sem_ver":[{"var":"version"},">","2.4.0"]},"on","off"]}`,
			byHand: func(u *user) string {
				if later(u.Version, [...]int{2, 4, 0}) {
					return "on"
				}
				return "off"
			},
			byContext: func(who openfeature.FlattenedContext) string {
				if version, _ := who[versionKey].(string); later(version, [...]int{2, 4, 0}) {
					return "on"
				}
				return "off"
			},
			launchDarkly: func(b *ldbuilders.FlagBuilder) {
				b.AddRule(ldRule(0, ldbuilders.Clause(versionKey, ldmodel.OperatorSemVerGreaterThan, ldvalue.String("2.4.0"))))
			},
		},
	}
}

func ldRule(variation int, clauses ...ldmodel.Clause) *ldbuilders.RuleBuilder {
	return ldbuilders.NewRuleBuilder().ID(strconv.Itoa(variation)).Variation(variation).Clauses(clauses...)
}

// ldSplit returns a percentage rollout, by the key of the context or an attribute.
func ldSplit(weights []int, attribute string) ldmodel.VariationOrRollout {
	const percent = 1000 // weights are thousandths of a percent
	buckets := make([]ldmodel.WeightedVariation, len(weights))
	for i, weight := range weights {
		buckets[i] = ldbuilders.Bucket(i, weight*percent)
	}
	r := ldbuilders.Rollout(buckets...)
	if attribute != "" {
		r.Rollout.BucketBy = ldattr.NewRef(attribute)
	}
	return r
}

// share is a 3-way split by hand, by the hash that flagd specifies.
func share(seed, id string) string {
	var space [64]byte
	hash := murmur3.Sum32(append(append(space[:0], seed...), id...))
	switch at := uint64(hash) * 100 >> 32; {
	case at < 50:
		return "red"
	case at < 80:
		return "green"
	default:
		return "blue"
	}
}

// later compares versions of three numbers by hand.
func later(version string, than [3]int) bool {
	for _, bound := range than {
		number, rest, _ := strings.Cut(version, ".")
		n, err := strconv.Atoi(number)
		if err != nil || n != bound {
			return err == nil && n > bound
		}
		version = rest
	}
	return false
}

// definition returns the flag in flagd's format.
func (c *evaluateCase) definition() string {
	var b strings.Builder
	b.WriteString(`{"state":"ENABLED","variants":{`)
	for i, v := range slices.Sorted(slices.Values(c.variants)) {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(`"` + v + `":"` + v + `"`)
	}
	b.WriteString(`},"defaultVariant":"` + c.variants[len(c.variants)-1] + `"`)
	if c.targeting != "" {
		b.WriteString(`,"targeting":` + c.targeting)
	}
	b.WriteByte('}')
	return b.String()
}

// fillers is how many flags there are beside those that are measured.
const fillers = 1000

func fillerKey(i int) string { return "filler-" + strconv.Itoa(10_000+i) }

// fillerDefinition is like the flags that teams have: some variants, a rule.
func fillerDefinition(i int) string {
	return `{"state":"ENABLED","variants":{"on":true,"off":false},"defaultVariant":"off",` +
		`"targeting":{"if":[{"ends_with":[{"var":"email"},"@team-` + strconv.Itoa(i) + `.example.com"]},"on",{"fractional":[["on",10],["off",90]]}]}}`
}

// flagdDocument returns a document of flagd with the flags of the cases and n more.
func flagdDocument(cases []evaluateCase, n int) string {
	var b strings.Builder
	b.WriteString(`{"flags":{`)
	for i := range cases {
		b.WriteString(strconv.Quote(cases[i].flag) + ":" + cases[i].definition() + ",")
	}
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Quote(fillerKey(i)) + ":" + fillerDefinition(i))
	}
	b.WriteString(`}}`)
	return b.String()
}
