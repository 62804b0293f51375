// Generated from the migrations; a test compares it with the migrated database.
// Columns that only PostgreSQL reads (the generated `search` texts) are left out.

diesel::table! {
    tenants (id) {
        id -> Uuid,
        name -> Text,
        currency_code -> Text,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
        version -> Int4,
        session_days -> Int4,
        idle_minutes -> Int4,
        time_zone -> Text,
        min_password_length -> Int4,
        mfa_required -> Bool,
    }
}

diesel::table! {
    accounts (id) {
        id -> Uuid,
        email -> Text,
        password_hash -> Text,
        created_at -> Timestamptz,
        email_verified_at -> Nullable<Timestamptz>,
        password_is_initial -> Bool,
    }
}

diesel::table! {
    users (tenant_id, id) {
        tenant_id -> Uuid,
        id -> Uuid,
        name -> Text,
        email -> Text,
        role -> Text,
        is_active -> Bool,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
        version -> Int4,
        account_id -> Uuid,
        awaits_verification -> Bool,
        custom_role_id -> Nullable<Uuid>,
        has_second_factor -> Bool,
        second_factor_reset_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    invitations (tenant_id, id) {
        tenant_id -> Uuid,
        id -> Uuid,
        email -> Text,
        name -> Nullable<Text>,
        role -> Text,
        invited_by_id -> Nullable<Uuid>,
        created_at -> Timestamptz,
        expires_at -> Timestamptz,
        custom_role_id -> Nullable<Uuid>,
    }
}

diesel::table! {
    mails (id) {
        id -> Uuid,
        sealed -> Bytea,
        created_at -> Timestamptz,
        due_at -> Timestamptz,
        attempts -> Int4,
    }
}

diesel::table! {
    links (token_hash) {
        token_hash -> Bytea,
        purpose -> Text,
        account_id -> Nullable<Uuid>,
        email -> Text,
        invited_to -> Nullable<Uuid>,
        invitation_id -> Nullable<Uuid>,
        sealed -> Nullable<Bytea>,
        expires_at -> Timestamptz,
    }
}

diesel::table! {
    custom_roles (tenant_id, id) {
        tenant_id -> Uuid,
        id -> Uuid,
        name -> Text,
        description -> Nullable<Text>,
        permissions -> Array<Text>,
        companies_scope -> Text,
        contacts_scope -> Text,
        deals_scope -> Text,
        interactions_scope -> Text,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
        version -> Int4,
    }
}

diesel::table! {
    teams (tenant_id, id) {
        tenant_id -> Uuid,
        id -> Uuid,
        name -> Text,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
        version -> Int4,
    }
}

diesel::table! {
    team_members (tenant_id, team_id, user_id) {
        tenant_id -> Uuid,
        team_id -> Uuid,
        user_id -> Uuid,
        is_lead -> Bool,
        since -> Timestamptz,
    }
}

diesel::table! {
    histories (tenant_id) {
        tenant_id -> Uuid,
        epoch -> Int8,
        position -> Int8,
        trimmed -> Int8,
        audit_sequence -> Int8,
        audit_hash -> Bytea,
        audit_previous -> Bytea,
    }
}

diesel::table! {
    events (tenant_id, position) {
        tenant_id -> Uuid,
        position -> Int8,
        id -> Uuid,
        occurred_at -> Timestamptz,
        actor_id -> Nullable<Uuid>,
        entity -> Text,
        record_id -> Uuid,
        kind -> Text,
        change -> Jsonb,
    }
}

diesel::table! {
    idempotency_keys (tenant_id, actor_id, key) {
        tenant_id -> Uuid,
        actor_id -> Uuid,
        key -> Text,
        operation -> Text,
        input_hash -> Bytea,
        answer -> Jsonb,
        epoch -> Int8,
        position -> Int8,
        created_at -> Timestamptz,
    }
}

diesel::table! {
    revocations (tenant_id, id) {
        tenant_id -> Uuid,
        id -> Uuid,
        user_id -> Uuid,
        session_id -> Nullable<Uuid>,
        revoked_at -> Timestamptz,
        kept_session_id -> Nullable<Uuid>,
    }
}

diesel::table! {
    sessions (tenant_id, id) {
        tenant_id -> Uuid,
        id -> Uuid,
        user_id -> Uuid,
        family_hash -> Bytea,
        token_hash -> Bytea,
        previous_hash -> Nullable<Bytea>,
        created_at -> Timestamptz,
        last_used_at -> Timestamptz,
        expires_at -> Timestamptz,
        idle_at -> Timestamptz,
        user_agent -> Nullable<Text>,
        address -> Nullable<Text>,
        ended_at -> Nullable<Timestamptz>,
        by_second_factor -> Bool,
    }
}

diesel::table! {
    signing_keys (kid) {
        kid -> Text,
        algorithm -> Text,
        sealed -> Bytea,
        created_at -> Timestamptz,
        signs_from -> Timestamptz,
    }
}

diesel::table! {
    audit_entries (tenant_id, sequence) {
        tenant_id -> Uuid,
        sequence -> Int8,
        id -> Uuid,
        occurred_at -> Timestamptz,
        actor_kind -> Text,
        actor_id -> Nullable<Uuid>,
        entity -> Text,
        record_id -> Uuid,
        kind -> Text,
        detail -> Text,
        ip -> Nullable<Text>,
        user_agent -> Nullable<Text>,
        request_id -> Nullable<Text>,
        previous_hash -> Bytea,
        hash -> Bytea,
    }
}

diesel::table! {
    companies (tenant_id, id) {
        tenant_id -> Uuid,
        id -> Uuid,
        name -> Text,
        domain -> Nullable<Text>,
        industry -> Nullable<Text>,
        email -> Nullable<Text>,
        phone -> Nullable<Text>,
        address -> Nullable<Jsonb>,
        owner_id -> Nullable<Uuid>,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
        version -> Int4,
    }
}

diesel::table! {
    contacts (tenant_id, id) {
        tenant_id -> Uuid,
        id -> Uuid,
        name -> Text,
        email -> Nullable<Text>,
        phone -> Nullable<Text>,
        job_title -> Nullable<Text>,
        company_id -> Nullable<Uuid>,
        lifecycle_stage -> Text,
        record_status -> Text,
        source -> Nullable<Text>,
        rating -> Nullable<Int4>,
        notes -> Nullable<Text>,
        owner_id -> Nullable<Uuid>,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
        version -> Int4,
    }
}

diesel::table! {
    pipelines (tenant_id, id) {
        tenant_id -> Uuid,
        id -> Uuid,
        name -> Text,
        is_default -> Bool,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
        version -> Int4,
    }
}

diesel::table! {
    pipeline_stages (tenant_id, id) {
        tenant_id -> Uuid,
        id -> Uuid,
        pipeline_id -> Uuid,
        name -> Text,
        position -> Int4,
        kind -> Text,
        win_probability -> Int4,
        rotting_after_days -> Nullable<Int4>,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
        version -> Int4,
    }
}

diesel::table! {
    deals (tenant_id, id) {
        tenant_id -> Uuid,
        id -> Uuid,
        pipeline_id -> Uuid,
        stage_id -> Uuid,
        name -> Text,
        amount -> Int8,
        currency_code -> Text,
        status -> Text,
        win_probability -> Int4,
        contact_id -> Nullable<Uuid>,
        company_id -> Nullable<Uuid>,
        owner_id -> Nullable<Uuid>,
        expected_close_date -> Nullable<Date>,
        stage_entered_at -> Timestamptz,
        closed_at -> Nullable<Timestamptz>,
        lost_reason -> Nullable<Text>,
        next_step -> Nullable<Text>,
        description -> Nullable<Text>,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
        version -> Int4,
    }
}

diesel::table! {
    deal_stage_changes (tenant_id, id) {
        tenant_id -> Uuid,
        id -> Uuid,
        deal_id -> Uuid,
        from_stage_id -> Nullable<Uuid>,
        to_stage_id -> Uuid,
        entered_at -> Timestamptz,
        exited_at -> Nullable<Timestamptz>,
        changed_by_id -> Nullable<Uuid>,
        lost_reason -> Nullable<Text>,
    }
}

diesel::table! {
    api_keys (tenant_id, id) {
        tenant_id -> Uuid,
        id -> Uuid,
        name -> Text,
        prefix -> Text,
        hash -> Bytea,
        user_id -> Uuid,
        scope -> Text,
        created_at -> Timestamptz,
        expires_at -> Timestamptz,
        last_used_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    interactions (tenant_id, id) {
        tenant_id -> Uuid,
        id -> Uuid,
        kind -> Text,
        direction -> Nullable<Text>,
        channel -> Nullable<Text>,
        subject -> Text,
        content -> Nullable<Text>,
        outcome -> Nullable<Text>,
        next_action -> Nullable<Text>,
        scheduled_at -> Nullable<Timestamptz>,
        occurred_at -> Timestamptz,
        completed_at -> Nullable<Timestamptz>,
        contact_id -> Nullable<Uuid>,
        company_id -> Nullable<Uuid>,
        deal_id -> Nullable<Uuid>,
        created_by_id -> Nullable<Uuid>,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
        version -> Int4,
    }
}

diesel::table! {
    data_keys (tenant_id, id) {
        tenant_id -> Uuid,
        id -> Uuid,
        purpose -> Text,
        is_current -> Bool,
        sealed -> Bytea,
        created_at -> Timestamptz,
    }
}

diesel::table! {
    second_factors (account_id) {
        account_id -> Uuid,
        secret -> Bytea,
        created_at -> Timestamptz,
        confirmed_at -> Nullable<Timestamptz>,
        last_step -> Int8,
        failures -> Int4,
        failed_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    company_secrets (tenant_id, company_id, field) {
        tenant_id -> Uuid,
        company_id -> Uuid,
        field -> Text,
        key_id -> Uuid,
        sealed -> Bytea,
        blind_index -> Nullable<Bytea>,
        updated_at -> Timestamptz,
        index_key_id -> Nullable<Uuid>,
    }
}

diesel::table! {
    recovery_codes (account_id, hash) {
        account_id -> Uuid,
        hash -> Bytea,
    }
}

diesel::table! {
    pending_sign_ins (tenant_id, hash) {
        tenant_id -> Uuid,
        hash -> Bytea,
        user_id -> Uuid,
        password_state -> Bytea,
        enrols -> Bool,
        tries -> Int4,
        expires_at -> Timestamptz,
    }
}

diesel::table! {
    linked_identities (issuer, subject) {
        issuer -> Text,
        subject -> Text,
        account_id -> Uuid,
        provider -> Text,
        email -> Text,
        linked_at -> Timestamptz,
        last_used_at -> Timestamptz,
    }
}

diesel::table! {
    provider_visits (state_hash) {
        state_hash -> Bytea,
        browser_hash -> Bytea,
        provider -> Text,
        sealed -> Bytea,
        challenge -> Bytea,
        return_to -> Text,
        expires_at -> Timestamptz,
    }
}

diesel::table! {
    provider_proofs (code_hash) {
        code_hash -> Bytea,
        challenge -> Bytea,
        provider -> Text,
        issuer -> Text,
        subject -> Text,
        email -> Text,
        account_id -> Uuid,
        password_state -> Bytea,
        expires_at -> Timestamptz,
    }
}

diesel::allow_tables_to_appear_in_same_query!(
    accounts,
    api_keys,
    audit_entries,
    companies,
    company_secrets,
    contacts,
    custom_roles,
    data_keys,
    deal_stage_changes,
    deals,
    events,
    histories,
    idempotency_keys,
    interactions,
    invitations,
    linked_identities,
    links,
    mails,
    pending_sign_ins,
    pipeline_stages,
    pipelines,
    provider_proofs,
    provider_visits,
    recovery_codes,
    revocations,
    second_factors,
    sessions,
    signing_keys,
    team_members,
    teams,
    tenants,
    users,
);
