package api

import (
	"google.golang.org/grpc/health/grpc_health_v1"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionv1alpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"

	"github.com/holdfast-dev/holdfast/internal/pki"
	evaluationv1 "github.com/holdfast-dev/holdfast/proto/flagd/evaluation/v1"
	evaluationv2 "github.com/holdfast-dev/holdfast/proto/flagd/evaluation/v2"
	syncv1 "github.com/holdfast-dev/holdfast/proto/flagd/sync/v1"
	peerv1 "github.com/holdfast-dev/holdfast/proto/holdfast/peer/v1"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// access says who may call a method.
type access uint8

const (
	// nobody is the zero value: a method without a rule is refused.
	nobody access = iota
	// everybody with a certificate of any role.
	everybody
	// operators, and servers on their behalf.
	operators
	// servers only, where certificates tell.
	servers
)

// allows tells whether the identity may call.
func (a access) allows(id identity) bool {
	switch a {
	case nobody:
		return false
	case everybody:
		return id.role == pki.RoleServer || id.role == pki.RoleOperator || id.role == pki.RoleInstance
	case operators:
		return id.role == pki.RoleServer || id.role == pki.RoleOperator
	case servers:
		return id.role == pki.RoleServer || !id.verified && id.role == pki.RoleOperator
	default:
		return false
	}
}

// String names who may call, for messages.
func (a access) String() string {
	switch a {
	case everybody:
		return "any role"
	case operators:
		return "operator"
	case servers:
		return "server"
	default:
		return "nobody"
	}
}

// rule is what has to hold before a method's handler runs.
type rule struct {
	access access
	// always is true for methods that a server answers also while it must not
	// serve its state.
	always bool
	// endless streams are ended by the server when it drains.
	endless bool
}

// rules has one rule for every method of every service. A method that is not
// here is refused.
var rules = map[string]rule{ //nolint:gochecknoglobals // a table, never changed
	holdfastv1.StateService_Apply_FullMethodName:         {access: operators},
	holdfastv1.StateService_Get_FullMethodName:           {access: everybody},
	holdfastv1.StateService_List_FullMethodName:          {access: everybody},
	holdfastv1.StateService_Watch_FullMethodName:         {access: everybody, endless: true},
	holdfastv1.StateService_ListAudit_FullMethodName:     {access: everybody},
	holdfastv1.StateService_AwaitRevision_FullMethodName: {access: everybody},

	holdfastv1.SessionService_Connect_FullMethodName:         {access: everybody, endless: true},
	holdfastv1.InstanceService_ListInstances_FullMethodName:  {access: everybody},
	holdfastv1.InstanceService_AwaitInstances_FullMethodName: {access: everybody, endless: true},

	holdfastv1.FleetService_GetFleet_FullMethodName:        {access: everybody},
	holdfastv1.FleetService_WatchFleet_FullMethodName:      {access: everybody, endless: true},
	holdfastv1.FleetService_ListGossipKeys_FullMethodName:  {access: everybody},
	holdfastv1.FleetService_RotateGossipKey_FullMethodName: {access: operators},

	// What an operator needs to see and to mend a sick server is always answered.
	holdfastv1.ClusterService_GetStatus_FullMethodName:          {access: everybody, always: true},
	holdfastv1.ClusterService_ListMembers_FullMethodName:        {access: everybody, always: true},
	holdfastv1.ClusterService_JoinMember_FullMethodName:         {access: operators, always: true},
	holdfastv1.ClusterService_PromoteMember_FullMethodName:      {access: operators, always: true},
	holdfastv1.ClusterService_RemoveMember_FullMethodName:       {access: operators, always: true},
	holdfastv1.ClusterService_TransferLeadership_FullMethodName: {access: operators, always: true},
	holdfastv1.ClusterService_Backup_FullMethodName:             {access: operators},
	holdfastv1.ClusterService_Restore_FullMethodName:            {access: operators},

	peerv1.PeerService_Propose_FullMethodName:          {access: servers},
	peerv1.PeerService_ReadIndex_FullMethodName:        {access: servers},
	peerv1.PeerService_AwaitRevision_FullMethodName:    {access: servers},
	peerv1.PeerService_ChangeMembership_FullMethodName: {access: servers, always: true},
	peerv1.PeerService_PromiseBootstrap_FullMethodName: {access: servers, always: true},
	peerv1.PeerService_ListInstances_FullMethodName:    {access: servers},
	peerv1.PeerService_AwaitInstances_FullMethodName:   {access: servers, endless: true},
	peerv1.PeerService_RotateGossipKey_FullMethodName:  {access: servers},

	// Package facade registers these. Its streams end with the others, and it
	// bounds them itself.
	syncv1.FlagSyncService_SyncFlags_FullMethodName:     {access: everybody, endless: true},
	syncv1.FlagSyncService_FetchAllFlags_FullMethodName: {access: everybody},
	syncv1.FlagSyncService_GetMetadata_FullMethodName:   {access: everybody},

	evaluationv1.Service_ResolveAll_FullMethodName:     {access: everybody},
	evaluationv1.Service_ResolveBoolean_FullMethodName: {access: everybody},
	evaluationv1.Service_ResolveString_FullMethodName:  {access: everybody},
	evaluationv1.Service_ResolveFloat_FullMethodName:   {access: everybody},
	evaluationv1.Service_ResolveInt_FullMethodName:     {access: everybody},
	evaluationv1.Service_ResolveObject_FullMethodName:  {access: everybody},
	evaluationv1.Service_EventStream_FullMethodName:    {access: everybody, endless: true},

	evaluationv2.Service_ResolveBoolean_FullMethodName: {access: everybody},
	evaluationv2.Service_ResolveString_FullMethodName:  {access: everybody},
	evaluationv2.Service_ResolveFloat_FullMethodName:   {access: everybody},
	evaluationv2.Service_ResolveInt_FullMethodName:     {access: everybody},
	evaluationv2.Service_ResolveObject_FullMethodName:  {access: everybody},
	evaluationv2.Service_EventStream_FullMethodName:    {access: everybody, endless: true},

	grpc_health_v1.Health_Check_FullMethodName: {access: everybody, always: true},
	grpc_health_v1.Health_List_FullMethodName:  {access: everybody, always: true},
	grpc_health_v1.Health_Watch_FullMethodName: {access: everybody, always: true, endless: true},

	reflectionv1.ServerReflection_ServerReflectionInfo_FullMethodName:      {access: everybody, always: true},
	reflectionv1alpha.ServerReflection_ServerReflectionInfo_FullMethodName: {access: everybody, always: true},
}
