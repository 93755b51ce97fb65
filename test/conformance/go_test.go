package conformance

import (
	"errors"
	"testing"

	"github.com/go-logr/logr"
	flagd "github.com/open-feature/go-sdk-contrib/providers/flagd/pkg"
	"github.com/open-feature/go-sdk/openfeature"
)

// goProvider is flagd's provider for Go.
type goProvider struct {
	client *openfeature.Client
	told   *events
}

// connectGo starts flagd's provider for Go. The one that has flags evaluated calls
// by Connect, not gRPC.
func connectGo(options ...flagd.ProviderOption) func(t *testing.T, at address) provider {
	return func(t *testing.T, at address) provider {
		t.Helper()
		all := append([]flagd.ProviderOption{
			flagd.WithHost(at.host), flagd.WithPort(uint16(at.port)), flagd.WithLogger(logr.Discard()),
			flagd.WithRetryBackoffMs(100), flagd.WithRetryBackoffMaxMs(500), flagd.WithRetryGracePeriod(2),
			flagd.WithDeadline(5000),
		}, options...)
		if at.selector != "" {
			all = append(all, flagd.WithSelector(at.selector))
		}
		made, err := flagd.NewProvider(all...)
		if err != nil {
			t.Fatal(err)
		}
		domain := t.Name()
		p := &goProvider{client: openfeature.NewClient(domain), told: newEvents()}
		for _, name := range []openfeature.EventType{
			openfeature.ProviderReady, openfeature.ProviderConfigChange, openfeature.ProviderStale, openfeature.ProviderError,
		} {
			callback := func(d openfeature.EventDetails) {
				p.told.add(event{Name: string(name), Flags: d.FlagChanges, Message: d.Message})
			}
			p.client.AddHandler(name, &callback)
		}
		if err := openfeature.SetNamedProviderAndWait(domain, made); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := openfeature.SetNamedProvider(domain, openfeature.NoopProvider{}); err != nil {
				t.Error(err)
			}
		})
		return p
	}
}

func (p *goProvider) events() *events { return p.told }

func (p *goProvider) evaluate(t *testing.T, kind, key string, byDefault any, context map[string]any) details {
	t.Helper()
	attributes, targetingKey := map[string]any{}, ""
	for name, value := range context {
		if name == "targetingKey" {
			targetingKey, _ = value.(string)
			continue
		}
		attributes[name] = value
	}
	at := openfeature.NewEvaluationContext(targetingKey, attributes)
	switch kind {
	case boolean:
		d, err := p.client.BooleanValueDetails(t.Context(), key, byDefault.(bool), at)
		return goDetails(d.Value, d.EvaluationDetails, err)
	case text:
		d, err := p.client.StringValueDetails(t.Context(), key, byDefault.(string), at)
		return goDetails(d.Value, d.EvaluationDetails, err)
	case integer:
		d, err := p.client.IntValueDetails(t.Context(), key, int64(byDefault.(float64)), at)
		return goDetails(d.Value, d.EvaluationDetails, err)
	case number:
		d, err := p.client.FloatValueDetails(t.Context(), key, byDefault.(float64), at)
		return goDetails(d.Value, d.EvaluationDetails, err)
	default:
		d, err := p.client.ObjectValueDetails(t.Context(), key, byDefault, at)
		return goDetails(d.Value, d.EvaluationDetails, err)
	}
}

func goDetails(value any, d openfeature.EvaluationDetails, err error) details {
	made := details{
		Value: value, Variant: d.Variant, Reason: string(d.Reason), Code: string(d.ErrorCode),
		Message: d.ErrorMessage, Metadata: d.FlagMetadata,
	}
	if err != nil && made.Message == "" {
		made.Message = errors.Unwrap(err).Error()
	}
	return made
}
