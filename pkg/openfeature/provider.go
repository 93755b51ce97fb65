package openfeature

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"

	of "github.com/open-feature/go-sdk/openfeature"

	"github.com/holdfast-dev/holdfast/pkg/client"
)

// The metadata that every flag has beside that of its definition.
const (
	// RevisionKey is the revision of what decided, an int64.
	RevisionKey = "holdfast.revision"
	// VersionKey is the same as text, where hooks for telemetry look for the version
	// of a flag. A definition that has metadata of this name keeps its own.
	VersionKey = "version"
)

// Provider answers OpenFeature clients from the view of a client.Client. Its
// evaluations may be called at any time, also before Init and after Shutdown; they
// never wait. It leaves the client alone: who opened it closes it.
type Provider struct {
	client *client.Client
	events chan of.Event

	mu      sync.Mutex
	stop    context.CancelFunc // ends the goroutine that tells events; nil without one
	stopped sync.WaitGroup
}

var (
	_ of.FeatureProvider          = (*Provider)(nil)
	_ of.ContextAwareStateHandler = (*Provider)(nil)
	_ of.EventHandler             = (*Provider)(nil)
)

// NewProvider returns a provider over a client.
func NewProvider(c *client.Client) *Provider {
	return &Provider{client: c, events: make(chan of.Event)}
}

// Metadata names the provider.
func (p *Provider) Metadata() of.Metadata { return of.Metadata{Name: "Holdfast"} }

// Hooks returns none.
func (p *Provider) Hooks() []of.Hook { return nil }

// BooleanEvaluation implements of.FeatureProvider.
func (p *Provider) BooleanEvaluation(_ context.Context, flag string, otherwise bool, about of.FlattenedContext) of.BoolResolutionDetail {
	return resolve(p, flag, otherwise, about, "boolean", client.Value.AsBool)
}

// StringEvaluation implements of.FeatureProvider.
func (p *Provider) StringEvaluation(_ context.Context, flag, otherwise string, about of.FlattenedContext) of.StringResolutionDetail {
	return resolve(p, flag, otherwise, about, "string", client.Value.AsString)
}

// FloatEvaluation implements of.FeatureProvider. Any number is a float.
func (p *Provider) FloatEvaluation(_ context.Context, flag string, otherwise float64, about of.FlattenedContext) of.FloatResolutionDetail {
	return resolve(p, flag, otherwise, about, "number", client.Value.AsFloat)
}

// IntEvaluation implements of.FeatureProvider. A number is an integer if it has no
// fraction.
func (p *Provider) IntEvaluation(_ context.Context, flag string, otherwise int64, about of.FlattenedContext) of.IntResolutionDetail {
	return resolve(p, flag, otherwise, about, "integer", client.Value.AsInt)
}

// ObjectEvaluation implements of.FeatureProvider. The value is a map[string]any that
// belongs to the caller.
func (p *Provider) ObjectEvaluation(_ context.Context, flag string, otherwise any, about of.FlattenedContext) of.InterfaceResolutionDetail {
	return resolve(p, flag, otherwise, about, "object", object)
}

// resolve decides a flag and takes its value as a T.
func resolve[T any](
	p *Provider, flag string, otherwise T, about of.FlattenedContext, kind string, as func(client.Value) (T, bool),
) of.GenericResolutionDetail[T] {
	var few [fewAttributes]client.Attribute
	attributes := appendAttributes(few[:0], about)
	e := p.client.Evaluate(flag, attributes...)
	detail := of.GenericResolutionDetail[T]{Value: otherwise, ProviderResolutionDetail: of.ProviderResolutionDetail{
		Reason: of.Reason(e.Reason), Variant: e.Variant, FlagMetadata: metadata(&e),
	}}
	switch {
	case e.ErrorCode != "":
		detail.ResolutionError = p.failed(flag, of.ErrorCode(e.ErrorCode), attributes)
	case e.Value == client.Value{}:
		// The default of the code applies: the flag is off, or has no default.
	default:
		value, ok := as(e.Value)
		if !ok {
			detail.Reason, detail.Variant = of.ErrorReason, ""
			detail.ResolutionError = of.NewTypeMismatchResolutionError(fmt.Sprintf("flag %s is of type %s, not %s", flag, e.Value.Type(), kind))
			break
		}
		detail.Value = value
	}
	return detail
}

// failed tells why there is no decision.
func (p *Provider) failed(flag string, code of.ErrorCode, attributes []client.Attribute) of.ResolutionError {
	switch code {
	case of.FlagNotFoundCode:
		return of.NewFlagNotFoundResolutionError("flag " + flag + " not found")
	case of.ProviderNotReadyCode:
		status := p.client.Status()
		return of.NewProviderNotReadyResolutionError(noView(&status))
	case of.ParseErrorCode:
		return of.NewParseErrorResolutionError(p.why(flag, attributes))
	default:
		return of.NewGeneralResolutionError(p.why(flag, attributes))
	}
}

// why says in words what is wrong with a flag.
func (p *Provider) why(flag string, attributes []client.Attribute) string {
	return "flag " + flag + ": " + p.client.Explain(flag, slices.Clone(attributes)...).Detail
}

// hasView tells whether anything but the code decides, or whether nothing else is
// meant to.
func hasView(s *client.Status) bool {
	return s.Source != client.FromDefaults || s.OverriddenBy != ""
}

func noView(s *client.Status) string {
	text := "no server has told what holds yet, and nothing is cached"
	if s.LastError != "" {
		text += ": " + s.LastError
	}
	return text
}

// metadata returns that of an evaluation; nil where nothing decided.
func metadata(e *client.Evaluation) of.FlagMetadata {
	if e.Revision == 0 {
		return nil
	}
	all := make(of.FlagMetadata, len(e.Metadata)+2)
	all[RevisionKey], all[VersionKey] = int64(e.Revision), strconv.FormatUint(e.Revision, 10)
	for _, a := range e.Metadata {
		if n, ok := a.Value.AsInt(); ok {
			all[a.Key] = n
		} else {
			all[a.Key] = plain(a.Value)
		}
	}
	return all
}
