-- The tables of the replaced system, for a burner that reads them (nevermined.md section 9). Usually its backend has
-- made them, with types we can only infer: then they are left exactly as they are. Looked for by name, so that they are
-- found wherever the search path finds them.
do $$
begin
    if to_regclass('"accessTransactions"') is null then
        create table "accessTransactions" (
            "atxId"        uuid        primary key,
            did            text,
            owner          text,
            consumer       text,
            "assetType"    text,
            endpoint       text,
            "accessResult" text,
            "nvmCredits"   bigint,
            "createdAt"    timestamptz not null default now(),
            "updatedAt"    timestamptz not null default now()
        );
    end if;
    if to_regclass('"accessProcessorQueue"') is null then
        create table "accessProcessorQueue" (
            "atxId"        uuid        primary key,
            status         text        not null default 'Pending',
            retried        integer     not null default 0,
            "errorMessage" text        not null default '',
            "createdAt"    timestamptz not null default now(),
            "updatedAt"    timestamptz not null default now()
        );
    end if;
end
$$;
