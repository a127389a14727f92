-- Writers wait while a trigger is made, so this is run where they are missing, only.
CREATE TRIGGER mark_rooms AFTER INSERT ON temperatures
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION mark_rooms();
CREATE TRIGGER forget_rooms AFTER TRUNCATE ON temperatures
    FOR EACH STATEMENT EXECUTE FUNCTION forget_rooms();
